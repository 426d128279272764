"""Text that goes into pictures: made visible, measured and wrapped without any font library."""

from __future__ import annotations

import unicodedata

FONT = "DejaVu Sans"
FONTS = "DejaVu Sans, Verdana, Bitstream Vera Sans, sans-serif"
"""Families with (nearly) the same widths, then whatever there is; most others are narrower."""

# Advance widths of DejaVu Sans, printable ASCII from the space on, in thousandths of the size.
_PLAIN = (
    318, 401, 460, 838, 636, 950, 780, 275, 390, 390, 500, 838, 318, 361, 318, 337, 636, 636, 636, 636,
    636, 636, 636, 636, 636, 636, 337, 337, 838, 838, 838, 531, 1000, 684, 686, 698, 770, 632, 575, 775,
    752, 295, 295, 656, 557, 863, 748, 787, 603, 787, 695, 635, 611, 732, 684, 989, 685, 611, 685, 390,
    337, 390, 838, 500, 500, 613, 635, 550, 635, 615, 352, 635, 634, 278, 278, 579, 278, 974, 634, 612,
    635, 635, 411, 521, 392, 634, 592, 818, 592, 592, 525, 636, 337, 636, 838,
)  # fmt: skip
_BOLD_FACTOR = 1.13
"""The widest ratio of bold to plain text seen in names; single letters reach 1.2."""
_BREAKS = " /_-.:,\\"


def visible(text: str) -> str:
    """`text` with control characters written as escapes (a newline as \\n), so that it stays one line."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text
    )


def width(text: str, size: float, bold: bool = False) -> float:
    """Width of one line of text in DejaVu Sans of `size`, never much too small."""
    thousandths = sum(_advance(c) for c in text)
    return thousandths * size / 1000 * (_BOLD_FACTOR if bold else 1.0)


def _advance(c: str) -> int:
    if " " <= c <= "~":
        return _PLAIN[ord(c) - 32]
    if unicodedata.combining(c):
        return 0
    return 1000 if unicodedata.east_asian_width(c) in "WF" else 800


def wrap(text: str, most: int) -> list[str]:
    """Lines of at most `most` characters, broken after a separator where there is one in the second half."""
    lines = []
    while len(text) > most:
        cut = max((text.rfind(c, most // 2, most) + 1 for c in _BREAKS), default=0) or most
        lines.append(text[:cut])
        text = text[cut:]
    return [*lines, text]


def fit(text: str, size: float, most: float) -> list[str]:
    """Lines no wider than `most` points, broken between words, and inside a word only where one is wider."""
    lines: list[str] = []
    for word in text.split():
        joined = f"{lines[-1]} {word}" if lines else word
        if lines and width(joined, size) <= most:
            lines[-1] = joined
            continue
        start = 0
        for end in range(1, len(word) + 1):
            if width(word[start:end], size) > most and end - start > 1:
                lines.append(word[start : end - 1])
                start = end - 1
        lines.append(word[start:])
    return lines


def shape_text(shape: tuple[int, ...]) -> str:
    """(64, 20, 12, 12) as '64×20×12×12'; a scalar as 'scalar'."""
    return "×".join(map(str, shape)) or "scalar"


def number(value: float) -> str:
    """A number in at most six significant digits, without a needless '.0'."""
    return f"{value:.6g}"
