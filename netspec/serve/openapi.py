"""The OpenAPI document of what `netspec serve` answers: the Open Inference Protocol v2, the page's own, /metrics."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]
TEXT: Json = {"type": "string"}
SHAPE: Json = {"type": "array", "items": {"type": "integer"}}


def ref(name: str) -> Json:
    """A schema of `schemas` by its name."""
    return {"$ref": f"#/components/schemas/{name}"}


def listed(items: Json) -> Json:
    """A list of `items`."""
    return {"type": "array", "items": items}


def record(required: str, optional: str = "", **fields: Json) -> Json:
    """An object. required, optional: names of fields, in one text; `fields`: their schemas."""
    names = [*required.split(), *optional.split()]
    return {
        "type": "object",
        "properties": {name: fields[name] for name in names},
        **({"required": required.split()} if required else {}),
    }


def schemas() -> Json:
    """The protocol's objects, by the names that its own document has for them."""
    tensor = {
        "name": TEXT,
        "shape": SHAPE,
        "datatype": TEXT,
        "parameters": ref("parameters"),
        "data": ref("tensor_data"),
    }
    return {
        "metadata_server_response": record(
            "name version extensions", name=TEXT, version=TEXT, extensions=listed(TEXT)
        ),
        "metadata_model_response": record(
            "name platform inputs outputs",
            "versions",
            name=TEXT,
            platform=TEXT,
            versions=listed(TEXT),
            inputs=listed(ref("metadata_tensor")),
            outputs=listed(ref("metadata_tensor")),
        ),
        "metadata_tensor": record("name datatype shape", name=TEXT, datatype=TEXT, shape=SHAPE),
        "live_server_response": record("live", live={"type": "boolean"}),
        "ready_server_response": record("live", live={"type": "boolean"}),
        "ready_model_response": record("name ready", name=TEXT, ready={"type": "boolean"}),
        "parameters": {"type": "object"},
        "tensor_data": {
            "description": "Flat or nested, row by row; null is a missing value of a floating-point tensor. Left out "
            "where the parameter binary_data_size says that the tensor follows the JSON.",
            "type": "array",
            "items": {
                "nullable": True,
                "anyOf": [ref("tensor_data"), {"type": "number"}, {"type": "boolean"}],
            },
        },
        "request_input": record("name shape datatype", "parameters data", **tensor),
        "request_output": record("name", "parameters", name=TEXT, parameters=ref("parameters")),
        "response_output": record("name shape datatype", "parameters data", **tensor),
        "inference_request": record(
            "inputs",
            "id parameters outputs",
            id=TEXT,
            parameters=ref("parameters"),
            inputs=listed(ref("request_input")),
            outputs=listed(ref("request_output")),
        ),
        "inference_response": record(
            "model_name outputs",
            "model_version id parameters",
            model_name=TEXT,
            model_version=TEXT,
            id=TEXT,
            parameters=ref("parameters"),
            outputs=listed(ref("response_output")),
        ),
        "error_response": record("error", error=TEXT),
    }


def responses(schema: Json, *errors: str, kind: str = "application/json") -> Json:
    """The answer with 200 and those of the given error codes."""
    texts = {
        "400": "The request is wrong; `error` says where.",
        "404": "No model or version of this name.",
        "408": "The body did not arrive in time.",
        "413": "The body is too large.",
        "415": "The content-encoding is not read.",
        "503": "Too many requests wait; ask again later.",
    }
    answers: Json = {"200": {"description": "OK", "content": {kind: {"schema": schema}}}}
    for code in errors:
        content = {"application/json": {"schema": ref("error_response")}}
        answers[code] = {"description": texts[code], "content": content}
    return answers


def operation(name: str, summary: str, answers: Json, **more: Any) -> Json:
    """One method of a path."""
    return {"operationId": name, "summary": summary, "responses": answers, **more}


def parameter(name: str, where: str = "path") -> Json:
    """A parameter that is a text."""
    return {"name": name, "in": where, "required": where == "path", "schema": TEXT}


def infer(name: str) -> Json:
    """The POST that asks a net."""
    request = {
        "required": True,
        "content": {
            "application/json": {"schema": ref("inference_request")},
            "application/octet-stream": {
                "schema": {"type": "string", "format": "binary"},
            },
        },
    }
    return operation(
        name,
        "Ask the net. Input `observed` (BOOL) is false where a value is missing; NaN and null say the same. "
        "Parameters: `seed` of `sample`, `class` that completions are conditioned on, `binary_data_output`.",
        responses(ref("inference_response"), "400", "404", "408", "413", "415", "503"),
        requestBody=request,
    )


def model_paths() -> Json:
    """The paths of a model, each without and with a version."""
    paths: Json = {}
    for version, word in (("", ""), ("/versions/{version}", "_version")):
        at = "/v2/models/{model}" + version
        path_parameters = [parameter("model"), *([parameter("version")] if version else [])]
        metadata = ref("metadata_model_response")
        get = operation(
            f"model{word}_metadata", "Tensors that a model takes and gives.", responses(metadata, "404")
        )
        ready = responses(ref("ready_model_response"), "404")
        paths[at] = {"parameters": path_parameters, "get": get}
        paths[at + "/ready"] = {
            "parameters": path_parameters,
            "get": operation(f"model{word}_ready", "Whether a model can be asked.", ready),
        }
        paths[at + "/infer"] = {"parameters": path_parameters, "post": infer(f"model{word}_infer")}
    return paths


def page_paths() -> Json:
    """What the page asks beyond the protocol."""
    at, name = "/page/models/{model}", [parameter("model")]
    body = {"required": True, "content": {"application/json": {"schema": ref("inference_request")}}}
    plain: Json = {"type": "object"}
    errors = ("400", "404", "408", "413", "415", "503")
    return {
        "/page/models": {"get": operation("page_models", "What the page shows.", responses(listed(plain)))},
        f"{at}/example": {
            "parameters": [*name, parameter("row", "query")],
            "get": operation(
                "page_example", "A row of the test data.", responses(plain, "400", "404", "503")
            ),
        },
        f"{at}/gain": {
            "parameters": name,
            "post": operation(
                "page_gain",
                "Expected fall of the class entropy from seeing each missing patch, nats.",
                responses(plain, *errors),
                requestBody=body,
            ),
        },
        f"{at}/tree": {
            "parameters": name,
            "post": operation(
                "page_tree",
                "The most probable latent tree.",
                responses(TEXT, *errors, kind="image/svg+xml"),
                requestBody=body,
            ),
        },
    }


def document(version: str) -> Json:
    """The whole document. version: of netspec."""
    server, live = ref("metadata_server_response"), ref("live_server_response")
    metadata = {"get": operation("server_metadata", "Name, version and extensions.", responses(server))}
    return {
        "openapi": "3.0.3",
        "info": {
            "title": "netspec serve",
            "version": version,
            "description": "The Open Inference Protocol v2 with binary tensor data.",
            "license": {"name": "MIT", "url": "https://opensource.org/license/mit"},
        },
        "paths": {
            "/v2": metadata,
            "/v2/health/live": {"get": operation("server_live", "Whether the server runs.", responses(live))},
            "/v2/health/ready": {
                "get": operation(
                    "server_ready",
                    "Whether models can be asked.",
                    responses(ref("ready_server_response"), "503"),
                )
            },
            **model_paths(),
            "/metrics": {
                "get": operation("metrics", "Counters for Prometheus.", responses(TEXT, kind="text/plain"))
            },
            **page_paths(),
        },
        "components": {"schemas": schemas()},
    }
