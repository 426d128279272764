"""Converts binary messages (caffemodel, solverstate, binaryproto) of every dialect to the union schema and back.

Where two dialects use one field number for different things, the schema gives one of them a private number.
Tags of all numbers from 16 to 2047 take two bytes, so a field changes its number in place, before protobuf decodes the
file and after it encodes one.  A layer's type tells its dialect.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

from google.protobuf.message import DecodeError, EncodeError

from netspec.errors import SnapshotError
from netspec.schema.descriptors import descriptor, message_class
from netspec.schema.document import Node
from netspec.schema.encoded import BYTES, VARINT, Span, bad_strings, spans, varint
from netspec.schema.place import Place, UpgradeProblem
from netspec.schema.upgrade import upgrade_net, upgrade_solver

Dialect = Literal["bvlc", "simnets"]

_NET_LAYER, _LAYER_TYPE = 100, 2
# SimNets' LayerParameter and SolverParameter: number in its files -> number in proto/netspec.proto.
SIMNETS_LAYER = {145: 1945, 147: 1947, 148: 1948}
SIMNETS_SOLVER = {41: 1941, 42: 1942}
_SIMNETS_TYPES = ("Similarity", "MEX", "Noise")
# Layer types of other forks: number in their files -> number in proto/netspec.proto.
_FORK_LAYER = {
    "BN": {137: 1137},
    "CTCLoss": {148: 1193},
    "CenterLoss": {147: 1172, 149: 1172},
    "Correlation": {150: 1179},
    "Correlation1D": {150: 1179},
    "DataAugmentation": {148: 1185, 149: 1184},
    "DenseImageData": {138: 1139},
    "Downsample": {156: 1182},
    "FlowWarp": {159: 1180},
    "FocalLoss": {124: 1188, 145: 1188, 151: 1188},
    "Interp": {143: 1163, 163: 1163},
    "L1Loss": {151: 1169},
    "Lstm": {201: 1171},
    "Mean": {154: 1183},
    "Proposal": {201: 1165, 202: 1165},
    "ROIAlign": {154: 1164},
    "Resample": {155: 1181},
    "SegAccuracy": {154: 1173},
    "ShuffleChannel": {164: 1168},
    "SpatialTransformer": {150: 1170},
    "TripletLoss": {137: 1189, 147: 1189},
    "Upsample": {137: 1138, 149: 1138, 150: 1138, 160: 1138},
    "WarpCTCLoss": {148: 1193},
}
# Numbers that many forks gave to layers of their own: the type for which ours is the right reading.
_OWNERS = {
    145: "Parameter",
    147: "Swish",
    148: "Clip",
    149: "SumLoss",
    150: "LogLikelihoodLoss",
    151: "GeneralizedHingeLoss",
    152: "OneHot",
    154: "Translation",
    155: "Permutation",
    200: "AnnotatedData",
    201: "MultiBoxLoss",
    202: "Permute",
    203: "PriorBox",
    204: "DetectionOutput",
    205: "DetectionEvaluate",
    206: "Normalize",
}
# A number without a field, to which unknown fields of forks are moved.
_NOWHERE = 2047
# The first byte inside a clashing field that only BVLC's meaning of it can begin with.
_BVLC_FIRST = {145: b"\x0a", 147: b"\x0d", 148: b"\x0d\x15"}
_SIMNETS_SOLVER_ONLY = range(43, 48)
_NESTED_NETS = (21, 22, 25)


def read_binary(kind: str, data: bytes, file: str = "<bytes>") -> Any:
    """Decode any message of the schema ("BlobProto", "SolverState", ...) as it stands."""
    bad = bad_strings(data, descriptor(kind), file)
    if bad:
        readable = bytearray(data)
        for start, end in bad:
            readable[start:end] = bytes(byte if byte < 128 else ord("?") for byte in readable[start:end])
        data = bytes(readable)
    try:
        return message_class(kind).FromString(data)
    except (DecodeError, EncodeError, ValueError, RecursionError) as problem:
        raise SnapshotError(f"{file}: not a readable {kind}: {problem}") from None


def read_binary_net(data: bytes, file: str = "<bytes>", upgrade: bool = True) -> Any:
    """Decode a NetParameter of either dialect and bring V0 and V1 layers to the current syntax."""
    net = read_binary("NetParameter", _rewritten(data, _net_changes, file), file)
    if upgrade:
        _upgraded(lambda place: upgrade_net(place, lenient=True), net, file)
    return net


def read_binary_solver(data: bytes, file: str = "<bytes>") -> Any:
    """Decode a SolverParameter of either dialect."""
    solver = read_binary("SolverParameter", _rewritten(data, _solver_changes, file), file)
    _upgraded(upgrade_solver, solver, file)
    return solver


def write_binary_net(message: Any, dialect: Dialect = "bvlc") -> bytes:
    """Encode a NetParameter with the field numbers of a dialect; equal messages give equal bytes."""
    data = _encoded(message)
    return _renumbered(data, _net_back(data, dialect))


def write_binary_solver(message: Any, dialect: Dialect = "bvlc") -> bytes:
    """Encode a SolverParameter with the field numbers of a dialect."""
    data = _encoded(message)
    return _renumbered(data, _solver_back(data, dialect))


def _encoded(message: Any) -> bytes:
    return bytes(message.SerializePartialToString(deterministic=True))


def _upgraded(upgrade: Any, message: Any, file: str) -> None:
    try:
        upgrade(Place(message, Node(0)))
    except UpgradeProblem as problem:
        raise SnapshotError(f"{file}: {problem}") from None


class Change(NamedTuple):
    """A field whose tag is to be rewritten to another number."""

    span: Span
    number: int


def _rewritten(data: bytes, find: Any, file: str) -> bytes:
    try:
        return _renumbered(data, list(find(data, 0, len(data))))
    except IndexError as problem:
        raise SnapshotError(f"{file}: truncated or damaged: {problem}") from None


def _renumbered(data: bytes, changes: list[Change]) -> bytes:
    if not changes:
        return data
    out = bytearray(data)
    for span, number in changes:
        tag = number << 3 | span.wire
        out[span.tag : span.tag + 2] = bytes((tag & 0x7F | 0x80, tag >> 7))
    return bytes(out)


def _net_changes(data: bytes, start: int, end: int) -> Iterator[Change]:
    for layer in spans(data, start, end):
        if layer.number == _NET_LAYER and layer.wire == BYTES:
            fields = [span for span in spans(data, layer.start, layer.end) if _movable(data, span)]
            yield from _layer_changes(data, fields)


def _movable(data: bytes, span: Span) -> bool:
    """Whether a field counts here: the layer's type, or a message whose tag has the usual two bytes."""
    return span.number == _LAYER_TYPE or (
        span.wire == BYTES and span.number > 15 and data[span.tag + 1] < 0x80
    )


def _type_of(data: bytes, fields: list[Span]) -> str:
    name = ""
    for span in fields:
        if span.number == _LAYER_TYPE and span.wire == BYTES:
            name = data[span.start : min(span.end, span.start + 100)].decode("utf-8", "replace")
    return name


def _layer_changes(data: bytes, fields: list[Span]) -> Iterator[Change]:
    kind = _type_of(data, fields)
    for span in fields:
        target = _target(kind, span.number, data[span.start : min(span.start + 1, span.end)])
        if target is not None:
            yield Change(span, target)


def _target(kind: str, number: int, first: bytes) -> int | None:
    """The number that a field of a layer of type `kind` has in the schema; None when it stays as it is."""
    if kind in _SIMNETS_TYPES and number in SIMNETS_LAYER:
        return SIMNETS_LAYER[number]
    if number in _FORK_LAYER.get(kind, ()):
        return _FORK_LAYER[kind][number]
    if kind == "" and number in SIMNETS_LAYER:
        return None if first in _BVLC_FIRST[number] else SIMNETS_LAYER[number]
    return _NOWHERE if number in _OWNERS and _OWNERS[number] != kind != "" else None


def _solver_changes(data: bytes, start: int, end: int) -> Iterator[Change]:
    fields, simnets = [], False
    for span in spans(data, start, end):
        if span.number in _NESTED_NETS and span.wire == BYTES:
            yield from _net_changes(data, span.start, span.end)
        if span.number in SIMNETS_SOLVER and data[span.tag + 1] < 0x80:
            fields.append(span)
        large = span.number == 41 and span.wire == VARINT and varint(data, span.start, span.end)[0] > 1
        varint_42 = span.number == 42 and span.wire == VARINT
        simnets = simnets or large or varint_42 or span.number in _SIMNETS_SOLVER_ONLY
    if simnets:
        yield from (Change(span, SIMNETS_SOLVER[span.number]) for span in fields if span.wire == VARINT)


# --- back to the numbers of a dialect


def _net_back(data: bytes, dialect: Dialect, start: int = 0, end: int | None = None) -> list[Change]:
    changes: list[Change] = []
    if dialect != "simnets":
        return changes
    back = {private: number for number, private in SIMNETS_LAYER.items()}
    for layer in spans(data, start, len(data) if end is None else end):
        if layer.number == _NET_LAYER:
            fields = list(spans(data, layer.start, layer.end))
            changes += [Change(span, back[span.number]) for span in fields if span.number in back]
            clash = [span.number for span in fields if span.number in SIMNETS_LAYER]
            if clash:
                kind = _type_of(data, fields)
                raise SnapshotError(
                    f"a {kind} layer cannot be written in the SimNets dialect: field {clash[0]} is taken"
                )
    return changes


def _solver_back(data: bytes, dialect: Dialect) -> list[Change]:
    changes: list[Change] = []
    if dialect != "simnets":
        return changes
    back = {private: number for number, private in SIMNETS_SOLVER.items()}
    for span in spans(data, 0, len(data)):
        if span.number in _NESTED_NETS:
            changes += _net_back(data, dialect, span.start, span.end)
        if span.number in back:
            changes.append(Change(span, back[span.number]))
        if span.number in SIMNETS_SOLVER:
            raise SnapshotError("layer_wise_reduce and weights cannot be written in the SimNets dialect")
    return changes
