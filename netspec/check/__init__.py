"""`netspec check`: read, compile and shape spec files, run nothing that trains; say what each needs and lacks.

check(path)        a Report of one file
shaped_net(path)   the net of a file with its shapes and no memory allocated
drawable(path)     the same; of a net with layers of unknown types the net as written
"""

from netspec.check.files import check
from netspec.check.report import Report
from netspec.check.shapes import drawable, shaped_net

__all__ = ["Report", "check", "drawable", "shaped_net"]
