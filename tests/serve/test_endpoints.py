"""The Open Inference Protocol v2, path by path, against the model's own answers."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from starlette.testclient import TestClient

from netspec.model.model import Model

Array = NDArray[Any]


def image(seed: int = 0, rows: int = 1, missing: float = 0.4) -> Array:
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 256, (rows, 1, 8, 8)).astype(np.float32)
    x[rng.random(x.shape) < missing] = np.nan
    return x


def tensor(name: str, values: Array, **more: Any) -> dict[str, Any]:
    data = [None if v != v else v for v in values.ravel().tolist()]
    kind = {"f": "FP32", "b": "BOOL"}[values.dtype.kind]
    return {"name": name, "shape": list(values.shape), "datatype": kind, "data": data, **more}


def described(name: str, shape: list[int], datatype: str, size: int) -> dict[str, Any]:
    """An input whose values are binary data."""
    return {"name": name, "shape": shape, "datatype": datatype, "parameters": {"binary_data_size": size}}


def infer(client: TestClient, model: str = "digits", **body: Any) -> Any:
    return client.post(f"/v2/models/{model}/infer", json=body)


def outputs(answer: Any) -> dict[str, Array]:
    assert answer.status_code == 200, answer.text
    return {
        one["name"]: np.array(one["data"], np.float32).reshape(one["shape"])
        for one in answer.json()["outputs"]
    }


def test_server_metadata(client: TestClient) -> None:
    wanted = {"name": "netspec", "version": "1.2.3", "extensions": ["binary_tensor_data"]}
    for path in ("/v2", "/v2/"):
        assert client.get(path).json() == wanted


@pytest.mark.parametrize("what", ["live", "ready"])
def test_health(client: TestClient, what: str) -> None:
    assert client.get(f"/v2/health/{what}").json() == {"live": True}


@pytest.mark.parametrize("version", ["", "/versions/7"])
def test_model_metadata(client: TestClient, version: str) -> None:
    assert client.get(f"/v2/models/digits{version}").json() == {
        "name": "digits",
        "versions": ["7"],
        "platform": "netspec_prototxt",
        "inputs": [
            {"name": "data", "datatype": "FP32", "shape": [-1, 1, 8, 8]},
            {"name": "observed", "datatype": "BOOL", "shape": [-1, 1, 8, 8]},
        ],
        "outputs": [
            {"name": "posterior", "datatype": "FP32", "shape": [-1, 10]},
            {"name": "expected", "datatype": "FP32", "shape": [-1, 1, 8, 8]},
            {"name": "deviation", "datatype": "FP32", "shape": [-1, 1, 8, 8]},
            {"name": "sample", "datatype": "FP32", "shape": [-1, 1, 8, 8]},
            {"name": "log_likelihood", "datatype": "FP32", "shape": [-1]},
            {"name": "scores", "datatype": "FP32", "shape": [-1, 10]},
        ],
    }
    assert client.get(f"/v2/models/digits{version}/ready").json() == {"name": "digits", "ready": True}


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/v2/models/digit", "no model is called 'digit'; did you mean 'digits'?"),
        ("/v2/models/digits/versions/8", "has version '7', not '8'"),
        ("/v2/models/digits/versions/8/ready", "has version '7', not '8'"),
        ("/v1/models/digits", "there is no such path"),
    ],
)
def test_unknown_names_are_404(client: TestClient, path: str, words: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 404
    assert words in answer.json()["error"]


def test_answers_are_those_of_the_model(client: TestClient, digits: Model) -> None:
    pixels = image(rows=3)
    got = outputs(infer(client, inputs=[tensor("data", pixels)]))
    x = digits.from_pixels(pixels)
    mean, deviation = digits.expected_completion(x)
    wanted = {
        "posterior": digits.posterior(x),
        "log_likelihood": digits.log_likelihood(x),
        "scores": digits.class_log_likelihood(x),
        "expected": torch.from_numpy(digits.to_pixels(mean)),
        "deviation": deviation * 255,
    }
    for name, value in wanted.items():
        np.testing.assert_allclose(got[name], value.numpy(), rtol=2e-4, atol=2e-3, err_msg=name)
    seen = ~np.isnan(pixels)
    np.testing.assert_allclose(got["sample"][seen], pixels[seen], atol=1e-3)
    assert np.isfinite(got["sample"]).all()


def test_observed_null_and_nan_say_the_same(client: TestClient) -> None:
    pixels = image()
    whole = np.nan_to_num(pixels, nan=99.0)
    wanted = outputs(infer(client, inputs=[tensor("data", pixels)], outputs=[{"name": "scores"}]))["scores"]
    observed = tensor("observed", ~np.isnan(pixels))
    by_mask = infer(client, inputs=[tensor("data", whole), observed], outputs=[{"name": "scores"}])
    np.testing.assert_array_equal(outputs(by_mask)["scores"], wanted)
    text = json.dumps({"inputs": [tensor("data", pixels)], "outputs": [{"name": "scores"}]}).replace(
        "null", "NaN"
    )
    by_nan = client.post("/v2/models/digits/infer", content=text)
    np.testing.assert_array_equal(outputs(by_nan)["scores"], wanted)
    nested = {"name": "data", "shape": [1, 1, 8, 8], "datatype": "FP64",
              "data": [[[[None if v != v else v for v in row] for row in pixels[0, 0].tolist()]]]}  # fmt: skip
    np.testing.assert_array_equal(outputs(infer(client, inputs=[nested]))["scores"], wanted)


def test_id_and_choice_of_outputs(client: TestClient) -> None:
    body = infer(
        client, id="42", inputs=[tensor("data", image())], outputs=[{"name": "log_likelihood"}]
    ).json()
    assert body["id"] == "42"
    assert (body["model_name"], body["model_version"]) == ("digits", "7")
    assert [one["name"] for one in body["outputs"]] == ["log_likelihood"]
    assert body["outputs"][0]["shape"] == [1]
    assert "id" not in infer(client, inputs=[tensor("data", image())]).json()


def test_seed_and_class_condition_the_sample(client: TestClient, digits: Model) -> None:
    pixels = image(1)
    ask = {"inputs": [tensor("data", pixels)], "outputs": [{"name": "sample"}, {"name": "expected"}]}
    first, again = (outputs(infer(client, **ask, parameters={"seed": 5, "class": 3})) for _ in range(2))
    np.testing.assert_array_equal(first["sample"], again["sample"])
    other = outputs(infer(client, **ask, parameters={"seed": 6, "class": 3}))
    assert (first["sample"] != other["sample"]).any()
    mean, _ = digits.expected_completion(digits.from_pixels(pixels), torch.tensor([3]))
    np.testing.assert_allclose(first["expected"], digits.to_pixels(mean), atol=1e-2)


def test_binary_tensors_both_ways(client: TestClient) -> None:
    pixels, wanted = image(2, 2), None
    for kind, values in {"FP32": pixels, "FP64": pixels.astype("<f8"), "FP16": pixels.astype("<f2")}.items():
        head = {
            "inputs": [
                described("data", [2, 1, 8, 8], kind, values.nbytes),
                described("observed", [2, 1, 8, 8], "BOOL", 128),
            ],
            "outputs": [{"name": "posterior", "parameters": {"binary_data": True}}, {"name": "log_likelihood"}],
        }  # fmt: skip
        text = json.dumps(head).encode()
        body = text + values.tobytes() + (~np.isnan(pixels)).tobytes()
        headers = {"Inference-Header-Content-Length": str(len(text))}
        answer = client.post("/v2/models/digits/infer", content=body, headers=headers)
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == "application/octet-stream"
        length = int(answer.headers["inference-header-content-length"])
        told = json.loads(answer.content[:length])
        assert told["outputs"][0]["parameters"] == {"binary_data_size": 80}
        assert "data" not in told["outputs"][0]
        posterior = np.frombuffer(answer.content[length:], "<f4").reshape(2, 10)
        np.testing.assert_allclose(posterior.sum(1), 1, rtol=1e-5)
        assert len(told["outputs"][1]["data"]) == 2
        wanted = posterior if wanted is None else wanted
        np.testing.assert_allclose(posterior, wanted, rtol=1e-4)


def test_uint8_and_bf16_are_read(client: TestClient) -> None:
    pixels = image(3, missing=0).astype(np.uint8)
    wanted = outputs(infer(client, inputs=[tensor("data", pixels.astype(np.float32))]))["scores"]
    wide = pixels.astype("<f4").view("<u4") >> 16  # grey levels are exact in BF16's eight bits
    for kind, raw in {"UINT8": pixels.tobytes(), "BF16": wide.astype("<u2").tobytes()}.items():
        inputs = [described("data", [1, 1, 8, 8], kind, len(raw))]
        head = {"inputs": inputs, "parameters": {"binary_data_output": True}}
        text = json.dumps(head).encode()
        headers = {"Inference-Header-Content-Length": str(len(text))}
        answer = client.post("/v2/models/digits/infer", content=text + raw, headers=headers)
        assert answer.status_code == 200, answer.text
        got = np.frombuffer(answer.content[-40:], "<f4")
        np.testing.assert_allclose(got, wanted[0], rtol=1e-4)


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_packed_bodies(client: TestClient, encoding: str) -> None:
    text = json.dumps({"inputs": [tensor("data", image(rows=4))]}).encode()
    packed = gzip.compress(text) if encoding == "gzip" else zlib.compress(text)
    headers = {"content-encoding": encoding, "accept-encoding": encoding}
    answer = client.post("/v2/models/digits/infer", content=packed, headers=headers)
    assert answer.headers["content-encoding"] == encoding
    assert set(outputs(answer)) == {
        "posterior",
        "expected",
        "deviation",
        "sample",
        "log_likelihood",
        "scores",
    }


def test_a_classifier_takes_no_missing_values(client: TestClient, plain: Model) -> None:
    x = np.random.default_rng(0).normal(size=(2, 3, 6, 5)).astype(np.float32)
    answer = infer(client, "plain", inputs=[tensor("x", x)])
    np.testing.assert_allclose(
        outputs(answer)["scores"], plain.scores(torch.from_numpy(x)), rtol=1e-4, atol=1e-6
    )
    np.testing.assert_allclose(outputs(answer)["posterior"].sum(1), 1, rtol=1e-5)
    x[0, 0, 0, 0] = np.nan
    wrong = infer(client, "plain", inputs=[tensor("x", x)])
    assert wrong.status_code == 400
    assert "input 'x' has missing values; model 'plain' takes none" in wrong.json()["error"]
    assert "no input 'observed'" in infer(client, "plain", inputs=[tensor("observed", x > 0)]).json()["error"]


MASK = {"name": "observed", "shape": [1], "datatype": "BOOL", "data": [True]}
GOOD = {"name": "data", "shape": [1, 1, 8, 8], "datatype": "FP32", "data": [0.0] * 64}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"{", "the request is no JSON"),
        (b"[]", "must be a JSON object"),
        (b"\xff", "the request is no JSON"),
        (b"[" * 100_000, "nested too deep"),
        (b"{}", "inputs must be a list of objects"),
        ({"inputs": []}, "inputs is empty"),
        ({"inputs": [GOOD] * 17}, "at most 16"),
        ({"inputs": [GOOD, GOOD]}, "'data' is given twice"),
        ({"inputs": [GOOD], "id": 3}, "id must be a text"),
        ({"inputs": [GOOD], "outputs": [{"name": "posteriors"}]}, "did you mean 'posterior'?"),
        ({"inputs": [GOOD], "outputs": [{"name": "scores"}] * 2}, "asked for twice"),
        ({"inputs": [GOOD], "parameters": [1]}, "parameters of the request must be an object"),
        ({"inputs": [GOOD], "parameters": {"seed": "x"}}, "seed must be a whole number"),
        ({"inputs": [GOOD], "parameters": {"class": 10}}, "from 0 to 9"),
        ({"inputs": [GOOD], "parameters": {"binary_data_output": 1}}, "must be true or false"),
        ({"inputs": [GOOD | {"name": "dato"}]}, "did you mean 'data'?"),
        ({"inputs": [GOOD | {"name": None}]}, "each of inputs needs a name"),
        ({"inputs": [GOOD | {"shape": [1, -1, 8, 8]}]}, "shape must be a list of whole numbers"),
        ({"inputs": [GOOD | {"shape": [1] * 9}]}, "at most 8"),
        ({"inputs": [GOOD | {"shape": [1, 64]}]}, "the net takes [N, 1, 8, 8]"),
        ({"inputs": [GOOD | {"shape": [0, 1, 8, 8], "data": []}]}, "has 0 rows"),
        ({"inputs": [GOOD | {"datatype": "FP3"}]}, "did you mean 'FP32'?"),
        ({"inputs": [GOOD | {"datatype": "BYTES"}]}, "datatype 'BYTES' is not read"),
        ({"inputs": [GOOD | {"datatype": "INT8", "data": [300] * 64}]}, "outside INT8"),
        ({"inputs": [GOOD | {"datatype": "INT8", "data": [0.5] * 64}]}, "must be whole numbers"),
        ({"inputs": [GOOD | {"datatype": "INT8", "data": [None] * 64}]}, "holds neither null"),
        ({"inputs": [GOOD | {"data": ["1"] * 64}]}, "must be numbers or null"),
        ({"inputs": [GOOD | {"data": [[1], [2, 3]]}]}, "differ in length"),
        ({"inputs": [GOOD | {"data": [0] * 63}]}, "has 64 values, data brings 63"),
        ({"inputs": [GOOD | {"data": [1e12] * 64}]}, "a value beyond 1e+09"),
        ({"inputs": [GOOD | {"data": 3}]}, "data must be a list"),
        ({"inputs": [{k: GOOD[k] for k in ("name", "shape", "datatype")}]}, "neither data nor"),
        ({"inputs": [GOOD | {"parameters": {"binary_data_size": 256}}]}, "the body has 0 bytes more"),
        ({"inputs": [GOOD | {"parameters": {"shared_memory_region": "a"}}]}, "shared memory is not served"),
        ({"inputs": [GOOD], "outputs": [{"name": "scores", "parameters": {"classification": 3}}]}, "classification"),
        ({"inputs": [GOOD, GOOD | {"name": "observed"}]}, "'observed' must be BOOL"),
        ({"inputs": [GOOD, MASK]}, "it must be that of"),
    ],
)  # fmt: skip
def test_wrong_requests_are_told_why(client: TestClient, body: Any, words: str) -> None:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = client.post("/v2/models/digits/infer", content=content)
    assert answer.status_code == 400
    assert words in answer.json()["error"]


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity"])
def test_infinities_are_refused_and_nan_is_missing(client: TestClient, text: str) -> None:
    body = json.dumps({"inputs": [GOOD]}).replace("0.0", text)
    answer = client.post("/v2/models/digits/infer", content=body)
    assert answer.status_code == (200 if text == "NaN" else 400)


def test_binary_sizes_are_checked(client: TestClient) -> None:
    head = {
        "inputs": [
            {
                "name": "data",
                "shape": [1, 1, 8, 8],
                "datatype": "FP32",
                "parameters": {"binary_data_size": 256},
            }
        ]
    }
    text = json.dumps(head).encode()
    post = lambda content, length: client.post(  # noqa: E731
        "/v2/models/digits/infer", content=content, headers={"Inference-Header-Content-Length": str(length)}
    )
    assert post(text + bytes(256), len(text)).status_code == 200
    assert "the body has 255 bytes more" in post(text + bytes(255), len(text)).json()["error"]
    assert "1 bytes behind the binary data" in post(text + bytes(257), len(text)).json()["error"]
    assert "the body has" in post(text, 10**9).json()["error"]
    assert post(text, "-3").status_code == post(text, "4x").status_code == 400
    short = text.replace(b"256", b"252")
    assert "has 256 bytes, the request brings 252" in post(short + bytes(252), len(short)).json()["error"]


def test_bodies_are_bounded(client: TestClient) -> None:
    assert client.post("/v2/models/digits/infer", content=bytes(2**20 + 1)).status_code == 413
    bomb = gzip.compress(bytes(2**24))
    answer = client.post("/v2/models/digits/infer", content=bomb, headers={"content-encoding": "gzip"})
    assert answer.status_code == 413
    assert len(bomb) < 2**15
    cut = client.post("/v2/models/digits/infer", content=bomb[:100], headers={"content-encoding": "gzip"})
    assert "cut short" in cut.json()["error"]
    odd = client.post("/v2/models/digits/infer", content=b"x", headers={"content-encoding": "br"})
    assert odd.status_code == 415


def test_values_far_outside_are_refused_in_words(client: TestClient) -> None:
    """Values at the border of what is read are answered or refused in words, and no answer is a 500."""
    answer = infer(client, inputs=[GOOD | {"data": [1e9, *[None] * 63]}])
    assert answer.status_code == 400
    assert answer.json()["error"]
