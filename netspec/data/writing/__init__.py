"""Databases, features and blobs, written."""
