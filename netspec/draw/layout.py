"""Layered layout of an acyclic graph in plain Python: ranks, order within ranks, coordinates.

For machines without the `dot` program. The available libraries were no better: they refuse two edges between a pair of
nodes, recurse once per node (a ResNet is too deep), and reserve no room for labels on edges.

Method: Sugiyama's four steps. Longest-path ranks, then nodes are pulled towards their readers; long edges
become chains of points; barycentre sweeps cut crossings (best order kept); and each rank is placed by
weighted least squares with minimal distances: isotonic regression (pool adjacent violators), up and down.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import inf

POINT = -1
"""`Item.node` of a bend of a long edge."""


@dataclass
class Item:
    """A node, or one bend of a long edge, at its place: the middle x, and the top y of its rank."""

    node: int
    rank: int
    width: float
    x: float = 0.0
    above: list[int] = field(default_factory=list)
    """Items of the rank above that are joined to it."""
    below: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Layout:
    """Where everything is. Nodes first in `items` (same indices as given), then bends."""

    items: list[Item]
    chains: list[list[int]]
    """For each edge the items it passes, tail and head included."""
    tops: list[float]
    """Upper y of each rank."""
    heights: list[float]
    width: float
    height: float


def layered(
    sizes: Sequence[tuple[float, float]],
    edges: Sequence[tuple[int, int]],
    gap: float = 16.0,
    rank_gap: float = 20.0,
    sweeps: int = 24,
) -> Layout:
    """Place nodes of the given (width, height), edges running downwards, each from a lower to a higher index.

    gap: least distance between neighbours of a rank; rank_gap: between ranks, more where links go far aside.
    """
    ranks = _ranks(len(sizes), edges)
    items = [Item(i, ranks[i], w) for i, (w, _) in enumerate(sizes)]
    chains = [_chain(items, tail, head) for tail, head in edges]
    rows = _order(items, sweeps)
    _place(items, rows, gap)
    heights = [
        max((sizes[items[i].node][1] for i in row if items[i].node != POINT), default=0.0) for row in rows
    ]
    tops, y = [], 0.0
    for row, height in zip(rows, heights, strict=True):
        tops.append(y)
        reach = max((abs(items[i].x - items[j].x) for i in row for j in items[i].below), default=0.0)
        y += height + rank_gap + min(2 * rank_gap, 0.05 * reach)
    left = min((item.x - item.width / 2 for item in items), default=0.0)
    for item in items:
        item.x -= left
    width = max((item.x + item.width / 2 for item in items), default=0.0)
    return Layout(items, chains, tops, heights, width, max(0.0, y - rank_gap))


def _ranks(n: int, edges: Sequence[tuple[int, int]]) -> list[int]:
    """Longest path from a source; then nodes read more than they read move down to their first reader."""
    before: list[list[int]] = [[] for _ in range(n)]
    after: list[list[int]] = [[] for _ in range(n)]
    for tail, head in edges:
        before[head].append(tail)
        after[tail].append(head)
    ranks = [0] * n
    for v in range(n):
        ranks[v] = max((ranks[u] + 1 for u in before[v]), default=0)
    for v in reversed(range(n)):
        if after[v] and len(after[v]) >= len(before[v]):
            ranks[v] = min(ranks[w] for w in after[v]) - 1
    first = min(ranks, default=0)
    return [rank - first for rank in ranks]


def _chain(items: list[Item], tail: int, head: int) -> list[int]:
    """The items from tail to head, with a new bend on every rank in between; links neighbours."""
    chain = [tail]
    for rank in range(items[tail].rank + 1, items[head].rank):
        items.append(Item(POINT, rank, 2.0))
        chain.append(len(items) - 1)
    chain.append(head)
    for a, b in pairwise(chain):
        items[a].below.append(b)
        items[b].above.append(a)
    return chain


def _order(items: list[Item], sweeps: int) -> list[list[int]]:
    """Items of each rank from left to right, with few crossings."""
    rows: list[list[int]] = [[] for _ in range(1 + max((item.rank for item in items), default=-1))]
    for i in _depth_first(items):
        rows[items[i].rank].append(i)
    best, fewest = [list(row) for row in rows], _crossings(items, rows)
    for sweep in range(sweeps):
        if fewest == 0:
            break
        down = sweep % 2 == 0
        for row in rows if down else reversed(rows):
            _sort_row(items, rows, row, down)
        count = _crossings(items, rows)
        if count < fewest:
            best, fewest = [list(row) for row in rows], count
    return best


def _depth_first(items: list[Item]) -> list[int]:
    """Every item once, sources in index order, each followed by what it reaches: a good first order."""
    seen: set[int] = set()
    order: list[int] = []
    for source in (i for i, item in enumerate(items) if not item.above):
        stack = [source]
        while stack:
            i = stack.pop()
            if i not in seen:
                seen.add(i)
                order.append(i)
                stack += reversed(items[i].below)
    return order


def _sort_row(items: list[Item], rows: list[list[int]], row: list[int], down: bool) -> None:
    """Order a row by the mean position of its neighbours in the row before (after); ties keep their order."""
    rank = items[row[0]].rank + (-1 if down else 1)
    if not 0 <= rank < len(rows):
        return
    position = {i: p for p, i in enumerate(rows[rank])}
    own = {i: p for p, i in enumerate(row)}

    def centre(i: int) -> float:
        near = items[i].above if down else items[i].below
        return sum(position[j] for j in near) / len(near) if near else own[i] * len(position) / len(own)

    row.sort(key=centre)


def _crossings(items: list[Item], rows: list[list[int]]) -> int:
    """Pairs of edges between neighbouring ranks that cross."""
    total = 0
    for upper, lower in pairwise(rows):
        position = {i: p for p, i in enumerate(lower)}
        ends = [p for i in upper for p in sorted(position[j] for j in items[i].below)]
        counts = [0] * (len(lower) + 1)  # Fenwick tree: for each end, how many earlier ends lie to its right
        for k, end in enumerate(ends):
            i, not_right = end + 1, 0
            while i:
                not_right += counts[i]
                i &= i - 1
            total += k - not_right
            i = end + 1
            while i < len(counts):
                counts[i] += 1
                i += i & -i
    return total


def _place(items: list[Item], rows: list[list[int]], gap: float, sweeps: int = 60) -> None:
    """Give every item its x: near its neighbours, straight long edges first, no two closer than `gap`."""
    for row in rows:
        x = 0.0
        for i in row:
            items[i].x = x + items[i].width / 2
            x += items[i].width + gap
        for i in row:
            items[i].x -= x / 2
    for sweep in range(sweeps):
        down = sweep % 2 == 0
        both = sweep >= sweeps - 20  # at the end look both ways at once
        for row in rows if down else reversed(rows):
            wishes = [_wish(items, i, down, both) for i in row]
            _solve(items, row, wishes, gap)
    _straighten(items, rows, gap)


def _wish(items: list[Item], i: int, down: bool, both: bool) -> tuple[float, float]:
    """The position that an item prefers, and the weight of that wish."""
    near = items[i].above + items[i].below if both else items[i].above if down else items[i].below
    if not near:
        return items[i].x, 0.1
    bend = items[i].node == POINT
    weights = [
        (8.0 if items[j].node == POINT else 2.0) if bend else 4.0 if _alone(items, i, j) else 1.0
        for j in near
    ]
    total = sum(weights)
    return sum(w * items[j].x for w, j in zip(weights, near, strict=True)) / total, total


def _straighten(items: list[Item], rows: list[list[int]], gap: float, rounds: int = 3) -> None:
    """Put every unbranched chain of links on one line where its neighbours leave room."""
    left: dict[int, int] = {}
    right: dict[int, int] = {}
    for row in rows:
        left |= dict(zip(row[1:], row, strict=False))
        right |= dict(pairwise(row))
    for _ in range(rounds):
        for chain in _straight(items):
            low = max(
                (items[left[i]].x + _apart(items, left[i], i, gap) for i in chain if i in left), default=-inf
            )
            high = min(
                (items[right[i]].x - _apart(items, i, right[i], gap) for i in chain if i in right),
                default=inf,
            )
            wish = sum(items[i].x for i in chain) / len(chain)
            if low <= high:
                for i in chain:
                    items[i].x = min(max(wish, low), high)


def _straight(items: list[Item]) -> list[list[int]]:
    """Maximal runs of items in which each is the only neighbour of the next."""
    runs = []
    for i, item in enumerate(items):
        if len(item.above) == 1 and _alone(items, item.above[0], i):
            continue  # inside a run, or at its end
        run = [i]
        while len(items[run[-1]].below) == 1 and _alone(items, run[-1], items[run[-1]].below[0]):
            run.append(items[run[-1]].below[0])
        if len(run) > 1:
            runs.append(run)
    return runs


def _apart(items: list[Item], a: int, b: int, gap: float) -> float:
    """Least distance of the middles of two neighbours."""
    return (items[a].width + items[b].width) / 2 + gap


def _alone(items: list[Item], i: int, j: int) -> bool:
    """Whether two neighbours have no other between these two ranks: their link should be straight."""
    upper, lower = (i, j) if items[i].rank < items[j].rank else (j, i)
    return len(items[upper].below) == len(items[lower].above) == 1


def _solve(items: list[Item], row: list[int], wishes: list[tuple[float, float]], gap: float) -> None:
    """Positions by least squares of the wishes, subject to the order and the least distances."""
    offset, offsets = 0.0, []
    for k, i in enumerate(row):
        if k:
            offset += _apart(items, row[k - 1], i, gap)
        offsets.append(offset)
    blocks: list[tuple[float, float, int]] = []  # (mean, weight, how many)
    for (x, weight), shift in zip(wishes, offsets, strict=True):
        mean, many = x - shift, 1
        while blocks and blocks[-1][0] > mean:
            other, heavy, count = blocks.pop()
            mean = (mean * weight + other * heavy) / (weight + heavy)
            weight += heavy
            many += count
        blocks.append((mean, weight, many))
    k = 0
    for mean, _, many in blocks:
        for _ in range(many):
            items[row[k]].x = mean + offsets[k]
            k += 1
