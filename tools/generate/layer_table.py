"""Write docs/layers.md: every layer type with its effect (the first sentence of its docstring) and its blobs.

    python -m tools.generate.layer_table [--check]

With --check nothing is written; exit status 1 when the file is stale.
"""

from __future__ import annotations

import inspect
import sys
from pathlib import Path

from netspec import layers
from netspec.layers import Layer, registry

TARGET = Path(__file__).parent.parent.parent / "docs" / "layers.md"
LAYERS = Path(layers.__file__).parent
HEAD = """# Layer types

Made by `python -m tools.generate.layer_table` from the docstrings in `netspec/layers/`.
Fields of each type: `proto/netspec.proto`.

| type | effect | bottoms | tops | file |
|---|---|---|---|---|
"""


def first_sentence(kind: type[Layer]) -> str:
    """The first paragraph of a class's docstring up to its first full stop, on one line."""
    paragraph = (inspect.getdoc(kind) or "").split("\n\n")[0].replace("\n", " ")
    sentence = paragraph.split(". ")[0].rstrip(".")
    return sentence.replace("|", "\\|")


def table() -> str:
    rows = []
    for name, kind in sorted(registry.items(), key=lambda item: item[0].lower()):
        file = Path(inspect.getfile(kind)).relative_to(LAYERS).as_posix()
        tops = "as bottoms" if kind.paired else str(kind.tops)
        rows.append(
            f"| {name} | {first_sentence(kind)} | {kind.bottoms} | {tops} | [{file}](../netspec/layers/{file}) |"
        )
    return HEAD + "\n".join(rows) + "\n"


def main() -> int:
    text = table()
    if "--check" in sys.argv[1:]:
        if not TARGET.exists() or TARGET.read_text() != text:
            print(f"{TARGET} is stale: run python -m tools.generate.layer_table", file=sys.stderr)
            return 1
        return 0
    TARGET.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
