"""Reading, shaping and asking a net import no compiler: it takes as long again as torch itself."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from netspec.net.meta import MARK, guarded, without_compiler
from tests.places import ROOT

LOOK = "import sys; assert 'torch' in sys.modules; print([name for name in sys.modules if name == 'torch._dynamo'])"


@pytest.mark.parametrize(
    "script",
    [
        "import netspec; netspec.load('nets/ht_cac_digits.prototxt')",
        "from netspec.cli import app; app(['check', 'nets/ht_cac_digits.prototxt'], standalone_mode=False)",
        "import netspec, torch; m = netspec.load('nets/ht_cac_digits.prototxt'); x = torch.zeros(2, 1, 8, 8); "
        "x[0] = torch.nan; m.posterior(x); m.complete(x); m.most_probable_completion(x); "
        "m.expected_completion(x); m.marginals(x)",
    ],
    ids=["load", "check", "queries"],
)
def test_no_compiler_is_imported(script: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"{script}\n{LOOK}"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


def test_torch_is_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    before = [hasattr(function, MARK) for function in guarded()]
    assert before  # else this torch is built in another way, and the module can go
    monkeypatch.delitem(sys.modules, "torch._dynamo", raising=False)
    with without_compiler():
        assert all(hasattr(function, MARK) for function in guarded())
        assert torch.empty(3, device="meta").exp().shape == (3,)
    assert [hasattr(function, MARK) for function in guarded()] == before
