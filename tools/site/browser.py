"""Headless Chromium through its debugging pipe: pages opened, scripted, photographed and listened to.

The protocol is Chrome DevTools': JSON messages that end with a zero byte, on file descriptors 3 and 4. No driver is
needed.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
LOCAL = ("127.0.0.1", "localhost", "::1")
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--remote-debugging-pipe",
    "--disable-gpu",
    "--hide-scrollbars",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--force-color-profile=srgb",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)

PIPES = "import os, sys; i, o, *c = sys.argv[1:]; os.dup2(int(i), 3); os.dup2(int(o), 4); os.execv(c[0], c)"
"""Becomes Chromium, which reads commands from descriptor 3 and answers on 4."""


def program() -> str | None:
    """Path of a Chromium, None where there is none."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class BrowserError(Exception):
    """Chromium is not there, does not answer, or a script of a page failed."""


@dataclass
class Page:
    """An open page, with what it said and asked for."""

    browser: Browser
    session: str
    errors: list[str] = field(default_factory=list)
    """Console errors, exceptions and failed loads."""
    requests: list[str] = field(default_factory=list)
    """URLs that were asked for."""

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """A command of the protocol, and its answer."""
        return self.browser.call(method, self.session, **parameters)

    def goto(self, url: str) -> None:
        """Open `url` and wait until it is loaded."""
        self.call("Page.navigate", url=url)
        self.wait('document.readyState === "complete"')

    def evaluate(self, script: str) -> Any:
        """The value of an expression in the page; promises are awaited."""
        reply = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in reply:
            raise BrowserError(f"{script[:100]}: {reply['exceptionDetails'].get('exception', reply)}")
        return reply["result"].get("value")

    def wait(self, script: str, seconds: float = 60.0) -> None:
        """Wait until an expression is true."""
        end = time.monotonic() + seconds
        while not self.evaluate(script):
            if time.monotonic() > end:
                raise BrowserError(f"not true after {seconds:g} s: {script}")
            time.sleep(0.05)

    def drag(self, selector: str, points: list[tuple[float, float]]) -> None:
        """Move the pressed mouse over an element; points are shares of its width and height."""
        element = f"document.querySelector({json.dumps(selector)})"
        self.evaluate(f"{element}.scrollIntoView({{block: 'center'}})")
        box = self.evaluate(f"(b => [b.left, b.top, b.width, b.height])({element}.getBoundingClientRect())")
        kinds = ["mousePressed", *["mouseMoved"] * (len(points) - 1), "mouseReleased"]
        for kind, (x, y) in zip(kinds, [*points, points[-1]], strict=True):
            at = {"x": box[0] + x * box[2], "y": box[1] + y * box[3]}
            self.call("Input.dispatchMouseEvent", type=kind, button="left", buttons=1, clickCount=1, **at)

    def screenshot(self, path: Path, whole: bool = True) -> Path:
        """A PNG of the page (whole: beyond the window too)."""
        reply = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(reply["data"]))
        return path

    def outside(self) -> list[str]:
        """Requests that went to another machine."""
        inner = ("data", "blob", "about", "chrome")
        return [
            url
            for url in self.requests
            if (u := urlsplit(url)).scheme not in inner and u.hostname not in LOCAL
        ]


class Browser:
    """A running Chromium; a context manager."""

    def __init__(self, path: str | None = None):
        self.path = path or program()
        if self.path is None:
            raise BrowserError("no Chromium is installed (on Debian: apt-get install chromium)")
        self.number = 0
        self.rest = b""
        self.pages: dict[str, Page] = {}

    def __enter__(self) -> Browser:
        assert self.path is not None  # narrows the type
        self.folder = tempfile.mkdtemp(prefix="netspec-browser-")
        ours_in, theirs_out = os.pipe()
        theirs_in, ours_out = os.pipe()
        command = [self.path, *FLAGS, f"--user-data-dir={self.folder}", "about:blank"]
        theirs = [fcntl.fcntl(fd, fcntl.F_DUPFD, 10) for fd in (theirs_in, theirs_out)]  # clear of 3 and 4
        self.process = subprocess.Popen(
            [sys.executable, "-c", PIPES, *map(str, theirs), *command],
            pass_fds=theirs,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for fd in theirs:
            os.close(fd)
        os.close(theirs_in)
        os.close(theirs_out)
        self.reading, self.writing = os.fdopen(ours_in, "rb", 0), os.fdopen(ours_out, "wb", 0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.writing.close()
        self.reading.close()
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def call(self, method: str, session: str = "", **parameters: Any) -> dict[str, Any]:
        """Send a command and wait for its answer; events that come meanwhile go to their pages."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        self.writing.write(json.dumps(message).encode() + b"\0")
        while True:
            answer = self.receive()
            if answer.get("id") == self.number:
                if "error" in answer:
                    raise BrowserError(f"{method}: {answer['error']['message']}")
                return dict(answer["result"])
            self.hear(answer)

    def receive(self) -> dict[str, Any]:
        """The next message."""
        while b"\0" not in self.rest:
            chunk = self.reading.read(65536)
            if not chunk:
                raise BrowserError("Chromium has ended")
            self.rest += chunk
        message, _, self.rest = self.rest.partition(b"\0")
        return dict(json.loads(message))

    def hear(self, event: dict[str, Any]) -> None:
        """Note what a page says."""
        page = self.pages.get(event.get("sessionId", ""))
        if page is None:
            return
        name, facts = event.get("method"), event.get("params", {})
        if name == "Network.requestWillBeSent":
            page.requests.append(facts["request"]["url"])
        elif name == "Runtime.exceptionThrown":
            page.errors.append(json.dumps(facts["exceptionDetails"])[:500])
        elif name == "Runtime.consoleAPICalled" and facts["type"] == "error":
            page.errors.append(json.dumps(facts["args"])[:500])
        elif name == "Log.entryAdded" and facts["entry"]["level"] == "error":
            page.errors.append(f"{facts['entry']['text']} {facts['entry'].get('url', '')}")

    @contextmanager
    def page(self, width: int = 1200, height: int = 800, dark: bool = False) -> Iterator[Page]:
        """A page of a size in CSS pixels with storage of its own, since the site remembers its colours there."""
        context = self.call("Target.createBrowserContext")["browserContextId"]
        target = self.call("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = self.pages[session] = Page(self, session)
        for domain in ("Page", "Runtime", "Network", "Log"):
            page.call(f"{domain}.enable")
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        page.call("Emulation.setEmulatedMedia", features=scheme)
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        page.call("Emulation.setDeviceMetricsOverride", **size)
        try:
            yield page
        finally:
            self.call("Target.closeTarget", targetId=target)
            self.call("Target.disposeBrowserContext", browserContextId=context)
            del self.pages[session]
