"""Which layers there are."""

from __future__ import annotations

from netspec.layers import registry


def layer_type_list() -> list[str]:
    """Names of all layer types, sorted."""
    return sorted(registry)
