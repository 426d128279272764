"""Where the files lie that tests read."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
"""The checkout."""
NETS = ROOT / "nets"
CORPUS = ROOT / "tests" / "corpus"
VECTORS = ROOT / "tests" / "golden"
"""Golden vectors that are committed."""
GOLDEN = Path(os.environ.get("NETSPEC_GOLDEN", ROOT.parent / "shared" / "golden"))
"""All golden vectors, where they are at hand."""
OPENCV = ROOT / "tests" / "opencv"
