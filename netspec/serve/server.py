"""Loading what is served, and running the server until it is stopped."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from netspec.errors import NetspecError

if TYPE_CHECKING:
    from netspec.serve.subject import Subject

NEEDS = "netspec serve needs starlette and uvicorn: pip install starlette uvicorn httptools uvloop"


def subjects_of(
    paths: Sequence[Path], weights: Path | None = None, device: str | None = None
) -> list[Subject]:
    """The nets of run folders or prototxt files, each under a name of its own.

    weights: replace the weights of the only file.
    Raises NetspecError for weights with several files, and what `netspec.load` raises.
    """
    if weights is not None and len(paths) > 1:
        raise NetspecError("--weights belongs to one net; several were given")
    subjects: list[Subject] = []
    for path in paths:
        taken = {subject.name for subject in subjects}
        name = next(n for i in range(1, len(paths) + 1) if (n := numbered(name_of(path), i)) not in taken)
        subjects.append(subject_of(path, name, weights, device))
    return subjects


def numbered(name: str, number: int) -> str:
    """The name of number `i` among nets of the same name."""
    return name if number == 1 else f"{name}-{number}"


def subject_of(path: Path, name: str, weights: Path | None = None, device: str | None = None) -> Subject:
    """The net of a run folder or prototxt."""
    import netspec
    from netspec.serve.rows import TableSubject
    from netspec.serve.subject import ImageSubject

    model = netspec.load(path, weights, device=device or "cpu")
    kind = TableSubject if model.layout is not None else ImageSubject
    return kind(model, name, version_of(path) if weights is None else "1")


def name_of(path: Path) -> str:
    """A run folder or file as the name of a model: letters, digits, `_`, `.` and `-`."""
    path = path.resolve()
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", path.name if path.is_dir() else path.stem).strip("-.") or "net"


def version_of(path: Path) -> str:
    """The iteration of a run folder's newest snapshot; 1 for a file."""
    from netspec.interchange import snapshot_files as snapshot

    return str(snapshot.newest(path)[0].iteration) if path.is_dir() else "1"


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; NetspecError where the address is not available. Port 0 means any free port."""
    try:
        family, kind, number, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, number)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        hint = "; give another --port, or 0 for any that is free" if error.errno == 98 else ""
        raise NetspecError(f"cannot serve at {host}:{port}: {error.strerror}{hint}") from None
    return listener


def address_of(listener: socket.socket) -> str:
    """The URL of a listening socket."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{host}:{port}/"


def serve(
    subjects: Sequence[Subject],
    listener: socket.socket,
    host: str = "127.0.0.1",
    names: tuple[str, ...] = (),
    waiting: int = 128,
    body: int = 32 * 2**20,
    ready: Callable[[str], None] = print,
) -> None:
    """Serve until SIGINT or SIGTERM.

    host: the address that `listener` is bound to; names: further ones that requests may use.
    waiting: requests that wait for a net; body: bytes of one. ready: called with the URL once requests are answered.
    Raises NetspecError where the packages that serve are not installed.
    """
    try:
        import uvicorn

        from netspec.serve.app import Limits, application
        from netspec.serve.guard import hosts_for
        from netspec.serve.heads import protocol
    except ModuleNotFoundError as error:
        raise NetspecError(f"{NEEDS} ({error})") from None
    import netspec

    class Told(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            ready(address_of(listener))

    app = application(subjects, netspec.__version__, hosts_for(host, names), Limits(body, waiting))
    config = uvicorn.Config(
        app,
        http=protocol(),
        log_level="error",
        access_log=False,
        server_header=False,
        lifespan="on",
        timeout_graceful_shutdown=5,
    )
    Told(config).run(sockets=[listener])
