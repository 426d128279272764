"""A file whose writes wait in memory until they are committed: a full disk refuses a commit as a whole.

HDF5's library cannot be told that a write failed: it tries again when the file is closed, and then ends the process.
With this file in place of a path it never sees an error. A commit reserves its space before it writes anything; where
there is none, the file on the disk stays as the last commit left it, and can be read.
"""

from __future__ import annotations

import errno
import io
import os
from contextlib import suppress
from pathlib import Path

from netspec.schema.regular import refuse_special

PAGE = 1 << 16
"""Bytes that are kept, and written, together."""


class PendingFile(io.RawIOBase):
    """A regular file, opened to be read and written by one process.

    anew: drop the contents of an existing file, or make the file. Raises OSError where it cannot be opened or another
    writer holds it, DataError for a device or a pipe.
    """

    def __init__(self, path: Path, anew: bool = True):
        super().__init__()
        refuse_special(path)
        self.place = 0
        self.pages: dict[int, bytearray] = {}
        """What was written since the last commit, by the page's number."""
        self.refused = False
        """Whether a commit failed; nothing reaches the disk from then on."""
        self.held = self.valid = self.length = 0
        """Bytes on the disk, how many of them still count, and bytes of the present file."""
        flags = os.O_RDWR | getattr(os, "O_BINARY", 0) | (os.O_CREAT if anew else 0)
        self.disk = io.FileIO(os.open(path, flags, 0o666), "r+")
        try:
            lock(self.disk)
            if anew:
                self.disk.truncate(0)
            self.held = self.valid = self.length = self.disk.seek(0, os.SEEK_END)
        except OSError:
            self.disk.close()
            raise

    # What h5py calls

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self.place = offset + (0, self.place, self.length)[whence]
        return self.place

    def tell(self) -> int:
        return self.place

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill the buffer from the current place; zeros behind the end."""
        into = memoryview(buffer).cast("B")
        at = 0
        while at < len(into):
            number, start = divmod(self.place, PAGE)
            count = min(PAGE - start, len(into) - at)
            into[at : at + count] = self.page(number)[start : start + count]
            at, self.place = at + count, self.place + count
        return len(into)

    def write(self, data: memoryview) -> int:  # type: ignore[override]
        """Keep the bytes for the next commit."""
        values = memoryview(data).cast("B")
        at = 0
        while at < len(values):
            number, start = divmod(self.place, PAGE)
            count = min(PAGE - start, len(values) - at)
            if number not in self.pages:
                self.pages[number] = self.page(number)
            self.pages[number][start : start + count] = values[at : at + count]
            at, self.place = at + count, self.place + count
        self.length = max(self.length, self.place)
        return len(values)

    def truncate(self, size: int | None = None) -> int:
        """End the file at `size` (default: the current place); what was behind is zero from then on."""
        self.length = self.place if size is None else size
        self.valid = min(self.valid, self.length)
        last, start = divmod(self.length, PAGE)
        self.pages = {number: page for number, page in self.pages.items() if number <= last}
        if last in self.pages:
            self.pages[last][start:] = bytes(PAGE - start)
        return self.length

    def flush(self) -> None:
        """Does nothing: the library flushes at will, and must not fail."""

    def page(self, number: int) -> bytearray:
        """The present PAGE bytes of a page; zeros after the end of the file."""
        if (kept := self.pages.get(number)) is not None:
            return kept
        self.disk.seek(number * PAGE)
        count = min(PAGE, self.valid - number * PAGE)
        return bytearray((self.disk.read(count) if count > 0 else b"").ljust(PAGE, b"\0"))

    # What its owner calls

    def commit(self) -> None:
        """Write everything to the disk; OSError where it does not fit, and then the file is unchanged."""
        if self.refused:
            raise OSError(errno.EIO, "an earlier write failed")
        try:
            if self.length > self.held:
                allocate(self.disk, self.held, self.length)
            stale = range(self.valid // PAGE, -(-min(self.held, self.length) // PAGE))
            for number in sorted({*self.pages, *stale}, reverse=True):  # the file's head last
                start = number * PAGE
                write_all(self.disk, self.page(number)[: max(0, self.length - start)], start)
            if self.length < self.held:
                self.disk.truncate(self.length)
        except OSError:
            self.refused = True
            with suppress(OSError):
                self.disk.truncate(self.held)
            raise
        self.held = self.valid = self.length
        self.pages.clear()

    def close(self) -> None:
        """Close the file; uncommitted writes are lost."""
        if not self.closed:
            self.disk.close()
        super().close()


def lock(disk: io.FileIO) -> None:
    """Hold the file against other writers where the file system has locks; BlockingIOError where one holds it."""
    try:
        import fcntl

        fcntl.flock(disk, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise BlockingIOError(errno.EAGAIN, "another writer holds it") from None
    except (ImportError, OSError):
        return


def allocate(disk: io.FileIO, start: int, end: int) -> None:
    """Make the file `end` bytes long and reserve space from `start` on; OSError where there is none."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(disk.fileno(), start, end - start)
        return
    for at in range(start, end, PAGE):
        write_all(disk, bytes(min(PAGE, end - at)), at)


def write_all(disk: io.FileIO, data: bytes | bytearray, start: int) -> None:
    """Write all bytes: a disk that is nearly full takes only a part of a write at first."""
    disk.seek(start)
    rest = memoryview(data)
    while rest:
        rest = rest[disk.write(rest) :]
