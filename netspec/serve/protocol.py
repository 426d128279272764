"""Requests and responses of the Open Inference Protocol v2, with its binary tensor data extension."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from netspec.errors import did_you_mean
from netspec.serve.tensors import (
    Array,
    Refusal,
    datatype,
    datatype_of,
    from_binary,
    from_json,
    shape_of,
    to_json,
)

HEADER = "inference-header-content-length"
"""The header with the length of the JSON before binary data in a body."""
EXTENSIONS = ["binary_tensor_data"]
MOST_TENSORS = 16
TEXT = 200
"""Most characters of a request that an error repeats."""


@dataclass(frozen=True)
class Wanted:
    """An output that a request asks for."""

    name: str
    binary: bool


@dataclass(frozen=True)
class Request:
    """An inference request, read."""

    inputs: Mapping[str, Array]
    outputs: tuple[Wanted, ...] | None
    """None: all outputs of the model."""
    id: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    binary: bool = False
    """Whether outputs are binary data by default."""


def read(body: bytes, header_length: str | None = None) -> Request:
    """The request in an HTTP body. header_length: the value of Inference-Header-Content-Length, if sent.

    Raises a Refusal that names the wrong part.
    """
    end = len(body)
    if header_length is not None:
        if not (header_length.isascii() and header_length.isdecimal()) or int(header_length[:12]) > len(body):
            raise Refusal(
                f"Inference-Header-Content-Length is {header_length[:TEXT]!r}; the body has {len(body)} bytes"
            )
        end = int(header_length)
    message = parse(body[:end])
    parameters = _parameters(message, "the request")
    rest = memoryview(body)[end:]
    inputs: dict[str, Array] = {}
    for tensor in _objects(message.get("inputs"), "inputs", required=True):
        name = _name(tensor, "inputs")
        if name in inputs:
            raise Refusal(f"input {name!r} is given twice")
        inputs[name], rest = _input(tensor, name, rest)
    if len(rest):
        raise Refusal(f"the body has {len(rest)} bytes behind the binary data of its inputs")
    identity = message.get("id")
    if identity is not None and not isinstance(identity, str):
        raise Refusal("id must be a text")
    binary = _flag(parameters, "binary_data_output", "the request", False)
    outputs = None
    if message.get("outputs"):
        outputs = tuple(_output(tensor, binary) for tensor in _objects(message["outputs"], "outputs"))
        if len({output.name for output in outputs}) < len(outputs):
            raise Refusal("an output is asked for twice")
    return Request(inputs, outputs, identity, parameters, binary)


def parse(raw: bytes) -> dict[str, Any]:
    """A JSON object, in which NaN, Infinity and -Infinity may stand for numbers, as in Triton's."""
    try:
        message = json.loads(raw)
    except RecursionError:
        raise Refusal("the request is nested too deep") from None
    except ValueError as error:  # JSON, UTF-8, and integers of too many digits
        raise Refusal(f"the request is no JSON: {str(error)[:TEXT]}") from None
    if not isinstance(message, dict):
        raise Refusal("the request must be a JSON object with the field inputs")
    return message


def _objects(value: Any, what: str, required: bool = False) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise Refusal(f"{what} must be a list of objects, each with a name")
    if required and not value:
        raise Refusal(f"{what} is empty")
    if len(value) > MOST_TENSORS:
        raise Refusal(f"{what} has {len(value)} tensors; at most {MOST_TENSORS} are read")
    return value


def _name(entry: Mapping[str, Any], what: str) -> str:
    name = entry.get("name")
    if not isinstance(name, str):
        raise Refusal(f"each of {what} needs a name, a text")
    return name[:TEXT]


def _parameters(message: Mapping[str, Any], what: str) -> dict[str, Any]:
    parameters = message.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise Refusal(f"parameters of {what} must be an object")
    for name in parameters:
        if name.startswith("shared_memory"):
            raise Refusal(f"{what}: shared memory is not served; send the tensor as binary data")
    return parameters


def _flag(parameters: Mapping[str, Any], name: str, what: str, default: bool) -> bool:
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise Refusal(f"{what}: parameter {name} must be true or false")
    return value


def _input(tensor: Mapping[str, Any], name: str, rest: memoryview) -> tuple[Array, memoryview]:
    """(the tensor, the binary data behind it)."""
    shape, kind = shape_of(tensor.get("shape"), name), datatype_of(tensor.get("datatype"), name)
    parameters = _parameters(tensor, f"input {name!r}")
    size = parameters.get("binary_data_size")
    if size is None:
        if "data" not in tensor:
            raise Refusal(f"input {name!r} has neither data nor the parameter binary_data_size")
        return from_json(tensor["data"], kind, shape, name), rest
    if type(size) is not int or not 0 <= size <= len(rest):
        raise Refusal(
            f"input {name!r}: binary_data_size is {str(size)[:TEXT]}, the body has {len(rest)} bytes more"
        )
    if "data" in tensor:
        raise Refusal(f"input {name!r} has both data and binary_data_size")
    return from_binary(rest[:size], kind, shape, name), rest[size:]


def _output(output: Mapping[str, Any], binary: bool) -> Wanted:
    name = _name(output, "outputs")
    parameters = _parameters(output, f"output {name!r}")
    if parameters.get("classification"):
        raise Refusal(f"output {name!r}: the classification extension is not served; read `posterior`")
    return Wanted(name, _flag(parameters, "binary_data", f"output {name!r}", binary))


def choose(request: Request, names: list[str], model: str) -> tuple[Wanted, ...]:
    """The outputs to give: those asked for, or all; Refusal for one that the model lacks."""
    if request.outputs is None:
        return tuple(Wanted(name, request.binary) for name in names)
    for output in request.outputs:
        if output.name not in names:
            hint = did_you_mean(output.name, names, f"it gives {', '.join(names)}")
            raise Refusal(f"model {model!r} has no output {output.name!r}{hint}")
    return request.outputs


def write(
    model: str, version: str, request: Request, outputs: tuple[Wanted, ...], values: Mapping[str, Array]
) -> tuple[bytes, int | None]:
    """(body, length of its JSON where binary data follows) of the response with `outputs`, in their order."""
    head: dict[str, Any] = {"model_name": model, "model_version": version}
    if request.id is not None:
        head["id"] = request.id
    tensors, blobs = [], []
    for output in outputs:
        value = np.ascontiguousarray(values[output.name])
        tensor: dict[str, Any] = {
            "name": output.name,
            "shape": list(value.shape),
            "datatype": datatype(value),
        }
        if output.binary:
            blobs.append(value.tobytes())
            tensor["parameters"] = {"binary_data_size": len(blobs[-1])}
        else:
            tensor["data"] = to_json(value)
        tensors.append(tensor)
    head["outputs"] = tensors
    text = json.dumps(head, separators=(",", ":"), allow_nan=False).encode()
    return (b"".join([text, *blobs]), len(text)) if blobs else (text, None)
