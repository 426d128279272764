"""Where the entries of a YAML or JSON file stand, for errors."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import yaml

from netspec.errors import Position
from netspec.experiments.values import Loader, without_comment


class Places:
    """Positions in a text, which is parsed a second time when the first position is asked for."""

    def __init__(self, text: str, file: str):
        self.text, self.file = text, file

    @cached_property
    def _root(self) -> Any:
        text = self.text
        if text.lstrip("\ufeff \t\r\n#").startswith("{") or self.file.endswith(".json"):
            text = "\n".join(without_comment(line) for line in text.splitlines())
        try:
            return yaml.compose(text.expandtabs(1), Loader)
        except yaml.YAMLError:  # JSON that YAML does not read: then only the file is known
            return None

    def at(self, *path: str | int) -> Position:
        """Place of an entry, or of the nearest thing around it."""
        node, mark = self._root, None
        for step in path:
            inner = self._child(node, step)
            if inner is None:
                break
            mark, node = inner
        return (
            Position(self.file, mark.line + 1, mark.column + 1)
            if mark is not None
            else Position(self.file, 1)
        )

    @staticmethod
    def _child(node: Any, step: str | int) -> tuple[Any, Any] | None:
        """(mark, node) of an entry."""
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                if key.value == str(step):
                    return key.start_mark, value
        if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
            return node.value[step].start_mark, node.value[step]
        return None
