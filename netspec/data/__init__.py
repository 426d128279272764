"""Data: named sets, Caffe's sources, the transformer, missing-data masks."""

from __future__ import annotations

from netspec.data.source import Feeder, Source, Stream, feeder

__all__ = ["Feeder", "Source", "Stream", "feeder"]
