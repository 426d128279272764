"""Moves fields during an upgrade: the place in the text follows a field to its new path."""

from __future__ import annotations

from typing import Any

from netspec.schema.descriptors import is_repeated
from netspec.schema.document import Node

_PARAM_SPEC = {
    "param": "name",
    "blob_share_mode": "share_mode",
    "blobs_lr": "lr_mult",
    "weight_decay": "decay_mult",
}


class UpgradeProblem(Exception):
    """An old file that has no equivalent in the current syntax; `node` is the place to blame."""

    def __init__(self, text: str, node: Node):
        super().__init__(text)
        self.node = node


class Place:
    """A message together with the node of its places."""

    __slots__ = ("message", "node")

    def __init__(self, message: Any, node: Node):
        self.message, self.node = message, node

    def has(self, name: str) -> bool:
        """Whether a field was given (at least once)."""
        field = self.message.DESCRIPTOR.fields_by_name[name]
        return (
            len(getattr(self.message, name)) > 0 if is_repeated(field) else bool(self.message.HasField(name))
        )

    def values(self, name: str) -> list[tuple[Any, Node]]:
        """All given values of a field, each with its node."""
        if not self.has(name):
            return []
        value = getattr(self.message, name)
        values = list(value) if is_repeated(self.message.DESCRIPTOR.fields_by_name[name]) else [value]
        return [(value, self.node.child(name, index)) for index, value in enumerate(values)]

    def put(self, name: str, value: Any, node: Node) -> None:
        """Set a field, or append to it when it is repeated."""
        field = self.message.DESCRIPTOR.fields_by_name[name]
        if field.message_type is not None:
            target = getattr(self.message, name)
            (target.add() if is_repeated(field) else target).CopyFrom(value)
        elif is_repeated(field):
            getattr(self.message, name).append(value)
        else:
            setattr(self.message, name, value)
        if is_repeated(field):
            self.node.add(name, node)
        else:
            self.node.children[name] = [node]

    def sub(self, name: str, node: Node) -> Place:
        """The singular message field `name`, made (at the place of `node`) when absent."""
        message = getattr(self.message, name)
        message.SetInParent()
        nodes = self.node.children.setdefault(name, [])
        if not nodes:
            nodes.append(Node(node.offset))
        return Place(message, nodes[0])

    def add(self, name: str, node: Node) -> Place:
        """A new element of the repeated message field `name`."""
        return Place(getattr(self.message, name).add(), self.node.add(name, Node(node.offset)))

    def clear(self, *names: str) -> None:
        """Forget fields and their places."""
        for name in names:
            self.message.ClearField(name)
            self.node.children.pop(name, None)


def param_specs(old: Place, new: Place) -> None:
    """`blobs_lr`, `weight_decay`, V1's `param` and `blob_share_mode` -> `param { lr_mult ... }`, by index."""
    for source, target in _PARAM_SPEC.items():
        if source not in old.message.DESCRIPTOR.fields_by_name:
            continue
        for index, (value, node) in enumerate(old.values(source)):
            while len(new.message.param) <= index:
                new.add("param", node)
            Place(new.message.param[index], new.node.child("param", index)).put(target, value, node)
