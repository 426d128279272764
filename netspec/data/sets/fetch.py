"""Downloads with checksums: a file appears complete and verified, or not at all."""

from __future__ import annotations

import hashlib
import os
import tempfile
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

from netspec.errors import DataError

TIMEOUT = 20.0
CHUNK = 1 << 16


@dataclass(frozen=True)
class Remote:
    """A published file: its name, its addresses, and its size and checksums."""

    name: str
    size: int
    """Bytes; 0 when not published."""
    md5: str = ""
    sha256: str = ""
    mirrors: tuple[str, ...] = ()
    """Addresses without the file name."""


def digests(path: Path) -> dict[str, str]:
    """MD5 and SHA-256 of a file, in hexadecimal."""
    md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            md5.update(piece)
            sha256.update(piece)
    return {"md5": md5.hexdigest(), "sha256": sha256.hexdigest()}


def check(path: Path, remote: Remote) -> None:
    """Raise DataError unless the file has the published size and checksums."""
    size = path.stat().st_size
    if remote.size and size != remote.size:
        raise DataError(f"{remote.name}: {size} bytes, {remote.size} are published")
    actual = digests(path)
    for kind, published in (("md5", remote.md5), ("sha256", remote.sha256)):
        if published and actual[kind] != published:
            raise DataError(f"{remote.name}: {kind} {actual[kind]}, published is {published}")


def fetch(remote: Remote, folder: Path, mirrors: Sequence[str] = ()) -> Path:
    """Download `remote` into `folder` from the first mirror that gives the right bytes.

    `mirrors` are tried before the file's own. The file appears under its name only after its checksums agree.
    Raises DataError with every mirror's reason.
    """
    reasons = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{folder}: cannot be made ({error.strerror or error})") from error
    for mirror in (*mirrors, *remote.mirrors):
        address = f"{mirror.rstrip('/')}/{remote.name}"
        handle, name = tempfile.mkstemp(prefix=f".{remote.name}.", suffix=".part", dir=folder)
        os.close(handle)
        part = Path(name)
        try:
            download(address, part, remote)
            check(part, remote)
            os.replace(part, folder / remote.name)
            return folder / remote.name
        except urllib.error.URLError as error:
            reasons.append(f"{address}: {getattr(error, 'reason', error)}")
        except (DataError, OSError, ValueError, HTTPException) as error:
            reasons.append(f"{address}: {error}")
        finally:
            part.unlink(missing_ok=True)
    raise DataError("; ".join(reasons) or f"{remote.name}: no mirror is known")


def download(address: str, path: Path, remote: Remote) -> None:
    """Write what `address` serves to `path`, with a progress bar on stderr; stops when more comes than
    published.
    """
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    request = urllib.request.Request(address, headers={"User-Agent": "netspec"})
    with (
        urllib.request.urlopen(request, timeout=TIMEOUT) as answer,
        open(path, "wb") as file,
        Progress(*columns, console=Console(stderr=True), transient=True) as progress,
    ):
        declared = answer.headers.get("Content-Length", "")
        total = int(declared) if declared.isdigit() else remote.size
        task = progress.add_task(remote.name, total=total or None)
        received = 0
        while piece := answer.read(CHUNK):
            received += len(piece)
            if remote.size and received > remote.size:
                raise DataError(f"more than the published {remote.size} bytes come")
            file.write(piece)
            progress.update(task, advance=len(piece))
