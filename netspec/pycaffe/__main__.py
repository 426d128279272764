"""`python -m netspec.pycaffe script.py ...` runs a program whose `import caffe` finds this package.

`python -m netspec.pycaffe -m module ...` does the same for a module, `-c "code"` for a line of code.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

from netspec import pycaffe

USAGE = "usage: python -m netspec.pycaffe (SCRIPT | -m MODULE | -c CODE) [ARGUMENT ...]"


def main() -> None:
    """Run what the command line names, with its arguments, as `python` itself would."""
    words = sys.argv[1:]
    if words[:1] in (["-h"], ["--help"]):
        sys.stdout.write(f"{USAGE}\n")
        return
    if not words or (words[0] in ("-m", "-c") and len(words) < 2):
        sys.exit(USAGE)
    pycaffe.install()
    if words[0] == "-m":
        sys.argv, sys.path[0] = words[1:], str(Path.cwd())
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    elif words[0] == "-c":
        sys.argv, sys.path[0] = ["-c", *words[2:]], ""
        exec(compile(words[1], "<string>", "exec"), {"__name__": "__main__"})
    elif not Path(words[0]).exists():
        sys.exit(f"{words[0]}: no such script")
    else:
        sys.argv, sys.path[0] = words, str(Path(words[0]).resolve().parent)
        runpy.run_path(words[0], run_name="__main__")


if __name__ == "__main__":
    main()
