"""`netspec check`: read, compile and shape spec files, run nothing that trains; say what each needs and lacks.

check(path)        a Report of one file
shaped_net(path)   the net of a file with its shapes and no memory allocated
"""

from netspec.check.files import check
from netspec.check.report import Report
from netspec.check.shapes import shaped_net

__all__ = ["Report", "check", "shaped_net"]
