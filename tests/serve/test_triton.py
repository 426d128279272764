"""An unmodified Triton client talks to the server."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from netspec.model.model import Model


@pytest.fixture
def triton() -> Any:
    return pytest.importorskip("tritonclient.http")


def test_client(triton: Any, address: str, digits: Model) -> None:
    client = triton.InferenceServerClient(address)
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("digits")
    assert client.is_model_ready("digits", "7")
    assert not client.is_model_ready("nothing")
    assert client.get_server_metadata()["extensions"] == ["binary_tensor_data"]
    metadata = client.get_model_metadata("digits", "7")
    assert [one["name"] for one in metadata["inputs"]] == ["data", "observed"]
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (2, 1, 8, 8)).astype(np.float32)
    observed = rng.random(pixels.shape) > 0.3
    x = triton.InferInput("data", pixels.shape, "FP32").set_data_from_numpy(pixels)
    mask = triton.InferInput("observed", pixels.shape, "BOOL").set_data_from_numpy(observed)
    answer = client.infer("digits", [x, mask], request_id="a1", model_version="7")
    assert answer.get_response()["id"] == "a1"
    wanted = digits.posterior(digits.from_pixels(pixels, observed)).numpy()
    np.testing.assert_allclose(answer.as_numpy("posterior"), wanted, rtol=1e-4)
    assert answer.as_numpy("expected").shape == (2, 1, 8, 8)
    assert answer.as_numpy("log_likelihood").shape == (2,)

    pixels[~observed] = np.nan
    x = triton.InferInput("data", pixels.shape, "FP32").set_data_from_numpy(pixels)
    for binary in (True, False):
        asked = [triton.InferRequestedOutput("posterior", binary_data=binary)]
        answer = client.infer("digits", [x], outputs=asked, parameters={"seed": 3})
        np.testing.assert_allclose(answer.as_numpy("posterior"), wanted, rtol=1e-4)
    json_input = triton.InferInput("data", [2, 1, 8, 8], "FP32")
    json_input.set_data_from_numpy(np.nan_to_num(pixels), binary_data=False)
    for packing in ("gzip", "deflate"):
        answer = client.infer(
            "digits",
            [json_input, mask],
            request_compression_algorithm=packing,
            response_compression_algorithm=packing,
        )
        np.testing.assert_allclose(answer.as_numpy("posterior"), wanted, rtol=1e-4)


def test_client_learns_what_was_wrong(triton: Any, address: str) -> None:
    client = triton.InferenceServerClient(address)
    x = triton.InferInput("date", (1, 1, 8, 8), "FP32").set_data_from_numpy(
        np.zeros((1, 1, 8, 8), np.float32)
    )
    with pytest.raises(Exception, match="did you mean 'data'") as raised:
        client.infer("digits", [x])
    assert raised.value.status() == "400"
