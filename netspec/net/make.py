"""make_net: from the text of a net to a net that runs, in one call."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from netspec import schema
from netspec.net import reading
from netspec.net.graph import compile
from netspec.net.net import Net, build
from netspec.schema import Document, spec
from netspec.schema.spec import NetSpec


def make_net(
    source: str | Path | Document | NetSpec,
    phase: str = spec.TEST,
    *,
    stages: Sequence[str] = (),
    level: int = 0,
    **options: Any,
) -> Net:
    """The net of a prototxt file, of its text, of a document that was read, or of a NetSpec.

    source: a string with a brace or a line break is text, any other names a file.
    phase, stages, level: the state that the `include` and `exclude` rules of layers refer to; a NetSpec already has
    one.
    options: `seed` (of the fillers, 0 unless given), `device`, `share`, `input_shapes` and `history`, see `build`.
    Raises SpecError with every mistake of the net, each at its place.

    >>> import netspec
    >>> text = 'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 1 dim: 3 } } }'
    >>> netspec.make_net(text).shape("x")
    (1, 3)
    """
    if not isinstance(source, NetSpec):
        if isinstance(source, str) and ("{" in source or "\n" in source):
            source = schema.parse_net(source)
        elif not isinstance(source, Document):
            source = reading.read(source)
        source = spec.net(source, phase, stages, level)
    options.setdefault("seed", 0)
    return build(compile(source), **options)
