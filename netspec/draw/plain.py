"""A Picture laid out by our own layout: boxes, links with their shapes, legend."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from netspec.draw.families import COLOURS
from netspec.draw.layout import Layout, layered
from netspec.draw.picture import Box, Line, Picture, lines
from netspec.draw.scene import Curve, Item, Point, Rect, Scene, Text
from netspec.draw.text import width

PAD, MARGIN, LEADING = 7.0, 16.0, 1.3
_EDGE = 9.0
"""Size of the text on links."""


@dataclass(frozen=True)
class _Node:
    """A box, or the label of a blob, with its size as drawn."""

    w: float
    h: float
    box: int | None
    label: tuple[str, ...] = ()


def scene_of(picture: Picture, rankdir: str = "TB") -> Scene:
    """The scene of a picture; the data flows in direction `rankdir`."""
    sideways = rankdir in ("LR", "RL")
    nodes, edges = _nodes(picture)
    placed = layered([(n.h, n.w) if sideways else (n.w, n.h) for n in nodes], edges)
    legend, legend_width = _legend(picture)
    across, along = placed.width, placed.height
    w, h = (along, across) if sideways else (across, along)
    total = max(w, legend_width) + 2 * MARGIN
    frame = _Frame(placed, nodes, rankdir, (total - w) / 2, MARGIN + 52.0)
    scene = Scene(total, h + 52.0 + 2 * MARGIN, title=picture.title)
    scene.items += frame.shared(picture)
    scene.items += frame.curves(edges)
    for i, node in enumerate(nodes):
        x, y = frame.corner(i)
        scene.items += _label(node, x, y) if node.box is None else _box(picture.boxes[node.box], x, y, node.w)
    scene.items += legend
    return scene


def _nodes(picture: Picture) -> tuple[list[_Node], list[tuple[int, int]]]:
    """Boxes and labels, ordered so that every edge leads to a higher index; one label per blob, not a link."""
    place: dict[int, int] = {}
    labels: dict[int, int] = {}
    nodes: list[_Node] = []
    edges: dict[tuple[int, int], None] = {}
    outgoing: dict[int, list[int]] = {}
    for k, link in enumerate(picture.links):
        outgoing.setdefault(link.tail, []).append(k)
    for i, box in enumerate(picture.boxes):
        place[i] = len(nodes)
        nodes.append(_Node(*_size(box), i))
        for k in outgoing.get(i, ()):
            link = picture.links[k]
            if link.slot not in labels and link.label:
                labels[link.slot] = len(nodes)
                w = max(width(text, _EDGE) for text in link.label) + 6
                nodes.append(_Node(w, LEADING * _EDGE * len(link.label) + 2, None, link.label))
    for link in picture.links:
        if link.slot in labels:
            edges[place[link.tail], labels[link.slot]] = None
            edges[labels[link.slot], place[link.head]] = None
        else:
            edges[place[link.tail], place[link.head]] = None
    return nodes, list(edges)


def _size(box: Box) -> tuple[float, float]:
    if box.output:
        return width(box.output, 10.0) + 8, 16.0
    blocks = [_block_size(lines(part)) for part in box.parts]
    inner = max(w for w, _ in blocks)
    height = sum(h for _, h in blocks) + 2 * PAD + (len(blocks) - 1) * (PAD + 3)
    return inner + 2 * PAD + (16 if len(blocks) > 1 else 0), height


def _block_size(block: list[Line]) -> tuple[float, float]:
    return max(width(line.text, line.size, line.bold) for line in block), sum(
        LEADING * line.size for line in block
    )


def _box(box: Box, x: float, y: float, w: float) -> list[Item]:
    """A rounded rectangle with the layer's text, then one inner rectangle for each in-place layer."""
    middle = x + w / 2
    if box.output:
        return [Text(middle, y + 8, box.output, 10.0, colour="#444444")]
    first = box.parts[0]
    loss = any(part.family == "loss" for part in box.parts)
    items: list[Item] = [
        Rect(x, y, w, _size(box)[1], COLOURS[first.family], "#444444", 7.0, 2.0 if loss else 1.0)
    ]
    y += PAD
    for i, part in enumerate(box.parts):
        block = lines(part)
        height = _block_size(block)[1]
        if i:
            items.append(Rect(x + 5, y - 2, w - 10, height + 4, COLOURS[part.family], "#777777", 5.0, 0.8))
        for line in block:
            items.append(
                Text(middle, y + LEADING * line.size / 2, line.text, line.size, line.bold, line.colour)
            )
            y += LEADING * line.size
        y += PAD + 3
    return items


def _label(node: _Node, x: float, y: float) -> list[Item]:
    """A blob's name and shape on white, above the line that passes."""
    items: list[Item] = [Rect(x, y, node.w, node.h, "#ffffff")]
    for i, text in enumerate(node.label):
        middle = y + 1 + LEADING * _EDGE * (i + 0.5)
        items.append(Text(x + node.w / 2, middle, text, _EDGE, colour="#333333"))
    return items


def _legend(picture: Picture) -> tuple[list[Item], float]:
    """Title, and a chip for each family in use; with the width they need."""
    items: list[Item] = [Text(MARGIN, MARGIN + 7, picture.title, 14.0, True, anchor="start")]
    x = MARGIN
    for name in picture.families:
        w = width(name, 9.0) + 12
        items.append(Rect(x, MARGIN + 21, w, 17, COLOURS[name], "#777777", 5.0, 0.8))
        items.append(Text(x + w / 2, MARGIN + 29.5, name, 9.0))
        x += w + 7
    return items, max(x - 7, MARGIN + width(picture.title, 14.0, True)) - MARGIN


@dataclass(frozen=True)
class _Frame:
    """Turns the layout's coordinates (across, along) into the page's."""

    layout: Layout
    nodes: list[_Node]
    rankdir: str
    left: float
    top: float

    def point(self, across: float, along: float) -> Point:
        if self.rankdir in ("BT", "RL"):
            along = self.layout.height - along
        return (
            (self.left + across, self.top + along)
            if self.rankdir in ("TB", "BT")
            else (self.left + along, self.top + across)
        )

    def span(self, i: int) -> tuple[float, float]:
        """Beginning and end of node i along the flow; it is centred in its rank."""
        begin, end = self.rank(i)
        own = self.nodes[i].w if self.rankdir in ("LR", "RL") else self.nodes[i].h
        return (begin + end - own) / 2, (begin + end + own) / 2

    def rank(self, i: int) -> tuple[float, float]:
        """Beginning and end of item i's rank along the flow; links run straight in between."""
        rank = self.layout.items[i].rank
        return self.layout.tops[rank], self.layout.tops[rank] + self.layout.heights[rank]

    def corner(self, i: int) -> Point:
        """Upper left corner of node i on the page."""
        begin, end = self.span(i)
        x, y = self.point(self.layout.items[i].x, (begin + end) / 2)
        return x - self.nodes[i].w / 2, y - self.nodes[i].h / 2

    def curves(self, edges: list[tuple[int, int]]) -> list[Item]:
        """One smooth line per edge, with its own port on either box; an arrow where it enters a box."""
        tails: dict[int, list[int]] = {}
        heads: dict[int, list[int]] = {}
        items = self.layout.items
        for k, (tail, head) in enumerate(edges):
            tails.setdefault(tail, []).append(k)
            heads.setdefault(head, []).append(k)
        ports: dict[tuple[int, int], float] = {}
        for ends, near in ((tails, 1), (heads, -2)):
            for node, ks in ends.items():
                ks.sort(key=lambda k: items[self.layout.chains[k][near]].x)
                room = items[node].width * (0.7 if self.nodes[node].box is not None else 0.0)
                for p, k in enumerate(ks):
                    ports[k, near] = items[node].x + room * ((p + 0.5) / len(ks) - 0.5)
        return [self.curve(k, head, ports) for k, (_, head) in enumerate(edges)]

    def curve(self, k: int, head: int, ports: dict[tuple[int, int], float]) -> Curve:
        chain = self.layout.chains[k]
        x = ports[k, 1]
        points = [(x, self.span(chain[0])[1]), (x, self.rank(chain[0])[1])]
        for i in chain[1:-1]:
            points += [(self.layout.items[i].x, end) for end in self.rank(i)]
        x = ports[k, -2]
        points += [(x, self.rank(head)[0]), (x, self.span(head)[0])]
        pieces = []
        for (x0, y0), (x1, y1) in pairwise(points):
            if y1 - y0 < 0.01:
                continue  # the box fills its rank
            bend = (y1 - y0) / 2
            pieces.append((self.point(x0, y0 + bend), self.point(x1, y1 - bend), self.point(x1, y1)))
        return Curve(self.point(*points[0]), tuple(pieces), arrow=self.nodes[head].box is not None)

    def shared(self, picture: Picture) -> list[Item]:
        """Dashed lines between boxes that use the same weights, under all else; bowed where they go far."""
        place = {node.box: i for i, node in enumerate(self.nodes) if node.box is not None}
        curves: list[Item] = []
        for a, b, _ in picture.shared:
            (ax, ay), (bx, by) = (self.centre(place[i]) for i in (a, b))
            if self.layout.items[place[a]].rank == self.layout.items[place[b]].rank:
                piece = ((ax, ay), (bx, by), (bx, by))
            else:
                bow = 0.3 * abs(by - ay), 0.3 * abs(bx - ax)
                piece = ((ax + bow[0], ay - bow[1]), (bx + bow[0], by - bow[1]), (bx, by))
            curves.append(Curve((ax, ay), (piece,), "#8c1515", 1.2, dashed=True, arrow=False))
        return curves

    def centre(self, i: int) -> Point:
        x, y = self.corner(i)
        return x + self.nodes[i].w / 2, y + self.nodes[i].h / 2
