"""Lock: one process at a time owns a run folder; the system releases the lock when the process ends, in whatever
way.
"""

from __future__ import annotations

import errno
import os
import platform
import shlex
import sys
from pathlib import Path
from typing import IO

from netspec.errors import NetspecError
from netspec.schema.regular import append_regular

NAME = ".lock"
"""Name of the lock file; it says who holds the folder, and is removed with the lock."""


class Lock:
    """The lock of a folder, held until `release`."""

    def __init__(self, folder: Path):
        """Raises NetspecError, with who holds it, where another process has the folder."""
        self.path = folder / NAME
        self.file: IO[str] | None = None
        while self.file is None:
            self.file = self._taken()

    def _taken(self) -> IO[str] | None:
        """The lock file, held by this process; None where its holder released and removed it while we opened it."""
        file = append_regular(self.path)
        try:
            held = lock(file)
        except BaseException:
            file.close()
            raise
        if not held:
            file.seek(0)
            holder = file.read(300).strip() or "another process"
            file.close()
            raise NetspecError(
                f"{self.path.parent}: this run is going on: {holder}; wait for it, or stop it first"
            )
        if not self.path.exists() or os.fstat(file.fileno()).st_ino != self.path.stat().st_ino:
            file.close()
            return None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}, {shlex.join(sys.argv)}\n")
        file.flush()
        return file

    def release(self) -> None:
        """Let the folder go."""
        file, self.file = self.file, None
        if file is not None:
            self.path.unlink(missing_ok=True)
            file.close()


def lock(file: IO[str]) -> bool:
    """Lock an open file for this process alone; False where another process holds it, True on systems without locks."""
    try:
        import fcntl
    except ImportError:  # not a system of the POSIX kind
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES, errno.EAGAIN):
            return False
        if error.errno in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):  # a file system that has none
            return True
        raise
    return True
