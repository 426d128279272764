"""Pictures of one's own: folders, lists, arrays and databases, read alike."""

from netspec.data.pictures.collection import Pictures
from netspec.data.pictures.opening import open_pictures

__all__ = ["Pictures", "open_pictures"]
