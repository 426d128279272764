"""Numbers that nobody means, in every numeric field of every layer type, and bottoms of every rank: an error of ours at
the layer's place, or a net; on the meta device, in bounded memory and time.
"""

from __future__ import annotations

import resource
import signal
from collections.abc import Iterator
from functools import cache
from types import FrameType
from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor as Kind

from netspec import schema
from netspec.errors import NetspecError
from netspec.layers.base import registry
from netspec.net.graph import compile
from netspec.net.net import build
from netspec.schema import spec
from netspec.schema.descriptors import is_repeated
from tests.cases import Case, all_cases

Path = tuple[str, ...]

INTEGERS = {
    Kind.TYPE_INT32: (-(2**31), -1, 0, 1, 2**31 - 1),
    Kind.TYPE_UINT32: (0, 1, 2**31, 2**32 - 1),
    Kind.TYPE_INT64: (-(2**63), -1, 0, 2**31, 2**63 - 1),
    Kind.TYPE_UINT64: (0, 2**63, 2**64 - 1),
}
FLOATS = (float("nan"), float("inf"), float("-inf"), -1.0, 0.0, 1e38)
HUGE_LIST = 20_000
SECONDS = 20
"""Of processor time for one net; most take a hundredth."""
MEGABYTES = 512
"""That the process may grow by over all nets of a type."""
LONGEST = 100_000
"""Characters of an error."""
DEEP = 2
"""Messages within a layer's own that are looked into."""


@cache
def cases_of() -> dict[str, Case]:
    """The first case of each layer type."""
    by_type: dict[str, Case] = {}
    for case in all_cases():
        if "tests.python_layers" not in case.text:
            for layer in schema.parse_net(case.text).message.layer:
                by_type.setdefault(layer.type, case)
    return by_type


def fields(message: Any, depth: int = 0) -> Iterator[tuple[Path, Any]]:
    """(path, descriptor) of every field that holds no message, in a message and those within it."""
    for field in message.DESCRIPTOR.fields:
        if field.type != Kind.TYPE_MESSAGE:
            yield (field.name,), field
        elif depth < DEEP:
            inner = getattr(type(message)(), field.name)
            inner = inner.add() if is_repeated(field) else inner
            yield from (((field.name, *path), spans) for path, spans in fields(inner, depth + 1))


def values(field: Any) -> list[Any]:
    """Extreme values of a field; lists too where it is repeated."""
    if field.type in (Kind.TYPE_FLOAT, Kind.TYPE_DOUBLE):
        choices: list[Any] = list(FLOATS)
    elif field.type == Kind.TYPE_ENUM:
        choices = [value.number for value in field.enum_type.values]
    else:
        choices = list(INTEGERS.get(field.type, ()))
    if not (is_repeated(field) and choices):
        return choices
    return [*([value] for value in choices), [], choices[:3], [choices[1]] * 3, [choices[-1]] * HUGE_LIST]


def put(message: Any, path: Path, value: Any) -> None:
    for name in path[:-1]:
        inner = getattr(message, name)
        message = (inner[0] if len(inner) else inner.add()) if hasattr(inner, "add") else inner
    if isinstance(value, list):
        message.ClearField(path[-1])
        getattr(message, path[-1]).extend(value)
    else:
        setattr(message, path[-1], value)


def extremes(type: str) -> Iterator[tuple[str, Any, str]]:
    """(what was put, document, phase) for the first case with a layer of the type."""
    case = cases_of()[type]
    document = schema.parse_net(case.text, "net.prototxt")
    original = document.message.__deepcopy__()
    at = next(i for i, layer in enumerate(original.layer) if layer.type == type)
    name = registry[type].param_field
    for field in original.layer[at].DESCRIPTOR.fields:
        if field.type != Kind.TYPE_MESSAGE or is_repeated(field):
            continue
        if field.name not in (name, "loss_param") and not original.layer[at].HasField(field.name):
            continue
        for path, spans in fields(getattr(original.layer[at], field.name)):
            for value in values(spans):
                document.message.CopyFrom(original)
                put(document.message.layer[at], (field.name, *path), value)
                yield f"{field.name}.{'.'.join(path)} = {str(value)[:40]}", document, case.phase


def too_long(number: int, frame: FrameType | None) -> None:
    raise AssertionError(f"takes more than {SECONDS} s of processor time")


def judge(changed: Iterator[tuple[str, Any, str]]) -> int:
    """Make each net on the meta device; gives how many there were."""
    before = signal.signal(signal.SIGPROF, too_long)
    start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    count = 0
    try:
        for what, document, phase in changed:
            signal.setitimer(signal.ITIMER_PROF, SECONDS)
            try:
                build(compile(spec.net(document, phase)), device="meta")
            except NetspecError as error:
                if len(str(error)) > LONGEST:
                    raise AssertionError(f"{what}: an error of {len(str(error))} characters") from None
            except Exception as error:
                error.add_note(what)
                raise
            signal.setitimer(signal.ITIMER_PROF, 0)
            count += 1
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start) // 1024
    assert grown < MEGABYTES, f"{grown} MB"
    return count


TYPES = sorted(type for type in cases_of() if registry[type].param_field and type != "Python")


@pytest.mark.slow
@pytest.mark.parametrize("type", TYPES)
def test_extreme_values_of_every_field(type: str) -> None:
    assert judge(extremes(type)) > 0


@pytest.mark.parametrize(
    "type", ["Convolution", "Proposal", "PriorBox", "Resample", "DummyData", "DiffusionForward"]
)
def test_extreme_values_of_some_types(type: str) -> None:
    assert judge(extremes(type)) > 10


RANKS: tuple[list[int], ...] = (
    [],
    [1],
    [3],
    [2, 1],
    [2, 3, 1],
    [2, 3, 4, 4, 4],
    [2, 3] + [1] * 30,
    [2**40, 2],
    [2, 3, 1, 2**31],
    [2, 3, 2**31, 1],
    [2, 2**33, 2**33, 4],
)
"""Shapes that the bottoms get, all of them and one by one."""


def ranked() -> Iterator[tuple[str, Any, str]]:
    """Every type's case with other shapes for its inputs."""
    for type, case in cases_of().items():
        document = schema.parse_net(case.text, "net.prototxt")
        original = document.message.__deepcopy__()
        inputs = [i for i, layer in enumerate(original.layer) if layer.type == "Input"]
        places = [(i, k) for i in inputs for k in range(len(original.layer[i].input_param.shape))]
        for shape in RANKS:
            for chosen in (places, *([place] for place in places if len(places) > 1)):
                document.message.CopyFrom(original)
                for i, k in chosen:
                    document.message.layer[i].input_param.shape[k].dim[:] = shape
                yield f"{type}, {case.name}: {shape} at {chosen}", document, case.phase


@pytest.mark.slow
def test_bottoms_of_every_rank() -> None:
    assert judge(ranked()) > 2000
