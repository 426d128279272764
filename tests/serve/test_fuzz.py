"""Damaged requests get an error that says what is wrong, never a 500 (tools/fuzz/serving.py sends 100,000)."""

from __future__ import annotations

import random
from collections import Counter

from starlette.testclient import TestClient

from tools.fuzz.serving import case


def test_damaged_requests(client: TestClient) -> None:
    rng, counts = random.Random(5), Counter[int]()
    for _ in range(400):
        one = case(rng, "digits", (1, 8, 8))
        headers = {name: value.encode("latin-1") for name, value in one.headers.items()}
        answer = client.request(one.method, one.path, content=one.body, headers=headers)
        assert answer.status_code < 500, (one, answer.text)
        if answer.status_code >= 400 and one.method != "HEAD":
            assert answer.json()["error"]
        counts[answer.status_code] += 1
    assert counts[200] > 40
    assert counts[400] > 100
