"""Counters and histograms of a server in the text format of Prometheus (version 0.0.4)."""

from __future__ import annotations

import os
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
ROWS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass
class Histogram:
    """Counts of values up to each of `bounds`, their number and sum."""

    bounds: tuple[float, ...]
    counts: list[int] = field(default_factory=list)
    total: float = 0.0

    def add(self, value: float) -> None:
        """Count a value."""
        if not self.counts:
            self.counts = [0] * (len(self.bounds) + 1)
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def lines(self, name: str, label: str) -> list[str]:
        """The samples of one label, cumulative as the format has them."""
        below, lines = 0, []
        for bound, count in zip((*self.bounds, float("inf")), self.counts, strict=True):
            below += count
            edge = "+Inf" if bound == float("inf") else f"{bound:g}"
            lines.append(f'{name}_bucket{{{label},le="{edge}"}} {below}')
        return [*lines, f"{name}_sum{{{label}}} {self.total!r}", f"{name}_count{{{label}}} {below}"]


class Metrics:
    """What a server counts; changed by the event loop alone, so without locks."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, str, int]] = Counter()
        self.seconds: dict[str, Histogram] = {}
        self.rows: dict[str, Histogram] = {}
        self.waiting: dict[str, int] = {}

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request that was answered. route: its pattern, so that labels are few."""
        self.requests[method, route, status] += 1
        self.seconds.setdefault(route, Histogram(SECONDS)).add(seconds)

    def batch(self, model: str, rows: int) -> None:
        """Count a batch that the worker of `model` takes."""
        self.rows.setdefault(model, Histogram(ROWS)).add(float(rows))

    def text(self) -> str:
        """All metrics in the format of /metrics."""
        lines = head("netspec_requests_total", "counter", "Requests answered.")
        for (method, route, status), count in sorted(self.requests.items()):
            labels = f'method="{escape(method)}",route="{escape(route)}",code="{status}"'
            lines.append(f"netspec_requests_total{{{labels}}} {count}")
        lines += head("netspec_request_seconds", "histogram", "Time from the request's head to its answer.")
        for route, histogram in sorted(self.seconds.items()):
            lines += histogram.lines("netspec_request_seconds", f'route="{escape(route)}"')
        lines += head("netspec_batch_rows", "histogram", "Rows that the net is run on at once.")
        for model, histogram in sorted(self.rows.items()):
            lines += histogram.lines("netspec_batch_rows", f'model="{escape(model)}"')
        lines += head("netspec_waiting_requests", "gauge", "Requests that wait for the net.")
        for model, count in sorted(self.waiting.items()):
            lines.append(f'netspec_waiting_requests{{model="{escape(model)}"}} {count}')
        if (resident := resident_bytes()) is not None:
            lines += head("process_resident_memory_bytes", "gauge", "Memory of this process.")
            lines.append(f"process_resident_memory_bytes {resident}")
        return "\n".join(lines) + "\n"


def head(name: str, kind: str, text: str) -> list[str]:
    """The two lines before the samples of a metric."""
    return [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]


def escape(text: str) -> str:
    """A label's value."""
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def resident_bytes() -> int | None:
    """Resident memory of this process in bytes; None on systems without /proc."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")
