"""Compiling methods, and a net in place, with a way back."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from types import FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor

from netspec.net.net import Net
from netspec.net.random_state import random_state, set_random_state


def compile_method(owner: object, name: str) -> Callable[..., Any]:
    """The method `name` of `owner` compiled for that object alone, without fallback to plain Python.

    torch keeps what it compiled per code object, 8 variants at most, and then fails: with the code of the class,
    the nets of one program would fill that room together. So each object gets a copy of the code.
    """
    plain: FunctionType = getattr(type(owner), name)
    own = FunctionType(
        plain.__code__.replace(), plain.__globals__, plain.__name__, plain.__defaults__, plain.__closure__
    )
    return torch.compile(MethodType(own, owner), fullgraph=True, dynamic=False)


def compile_net(net: Net, batch: Sequence[Tensor]) -> str | None:
    """Compile `net` for batches like this one by running it once; returns None, or the reason why it was left
    uncompiled.

    Gradients are compiled too, unless the caller turns them off (torch.no_grad), as for a net that only tests.
    The trial run leaves weights, buffers, gradients and random numbers as they were.
    """
    device = next((value.device for value in batch if value.is_cuda), torch.device("cpu"))
    before = random_state(device)
    kept = [(value, value.detach().clone()) for value in (*net.parameters(), *net.buffers())]
    reason = None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch's own modules, about other modules of torch
            net._compiled_call_impl = compile_method(net, "forward")
            objective = net.objective(net(*batch))
            if objective.requires_grad:
                objective.backward()  # type: ignore[no-untyped-call]
    except Exception as error:  # whatever the compiler meets, the plain net still runs
        net._compiled_call_impl = None
        reason = f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"
    for param in net.params:
        param.value.grad = None
    with torch.no_grad():
        for value, copy in kept:
            value.copy_(copy)
    set_random_state(device, before)
    return reason
