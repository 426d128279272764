"""/metrics, read by Prometheus' own parser; the OpenAPI document, checked by its validator."""

from __future__ import annotations

import json

import pytest
from starlette.testclient import TestClient

from netspec.serve import openapi


def test_metrics_are_read_by_prometheus(client: TestClient) -> None:
    parser = pytest.importorskip("prometheus_client.parser")
    client.get("/v2/health/live")
    client.get("/nothing")
    answer = client.get("/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    families = {family.name: family for family in parser.text_string_to_metric_families(answer.text)}
    counts = {(s.labels["route"], s.labels["code"]): s.value for s in families["netspec_requests"].samples}
    assert counts["/v2/health/live", "200"] >= 1
    assert counts["other", "404"] >= 1
    samples = [
        s for s in families["netspec_request_seconds"].samples if s.labels["route"] == "/v2/health/live"
    ]
    buckets = [s.value for s in samples if s.name.endswith("_bucket")]
    assert buckets == sorted(buckets)
    count = next(s.value for s in samples if s.name.endswith("_count"))
    assert buckets[-1] == count == counts["/v2/health/live", "200"]
    assert next(iter(families["process_resident_memory_bytes"].samples)).value > 2**20


def test_openapi_document_is_valid() -> None:
    validator = pytest.importorskip("openapi_spec_validator")
    validator.validate(openapi.document("1.2.3"))


def test_every_path_of_the_document_is_served(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    assert document["info"]["version"] == "1.2.3"
    for path, item in document["paths"].items():
        real = path.replace("{model}", "digits").replace("{version}", "7")
        for method in set(item) & {"get", "post"}:
            answer = client.request(method, real)
            assert str(answer.status_code) in item[method]["responses"], (method, path, answer.text)


def test_answers_fit_the_document(client: TestClient) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    text = json.dumps(openapi.schemas()).replace("#/components/schemas/", "#/$defs/")
    definitions = json.loads(text)

    def fits(value: object, name: str) -> None:
        jsonschema.validate(value, {"$defs": definitions, "$ref": f"#/$defs/{name}"})

    fits(client.get("/v2").json(), "metadata_server_response")
    fits(client.get("/v2/models/digits").json(), "metadata_model_response")
    fits(client.get("/v2/models/digits/ready").json(), "ready_model_response")
    fits(client.get("/v2/models/none").json(), "error_response")
    request = {"inputs": [{"name": "data", "shape": [1, 1, 8, 8], "datatype": "FP32", "data": [3.0] * 64}]}
    fits(request, "inference_request")
    fits(client.post("/v2/models/digits/infer", json=request).json(), "inference_response")
