"""Answers as JSON."""

from __future__ import annotations

import json
from typing import Any

from starlette.responses import Response


def answer(value: Any, status: int = 200) -> Response:
    """A JSON answer. NaN and infinity are no JSON: ValueError."""
    return Response(json.dumps(value, allow_nan=False).encode(), status, media_type="application/json")
