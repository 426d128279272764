"""Layers of detection, optical flow and augmentation."""
