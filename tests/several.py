"""Several processes in a test: forked, joined by gloo, each running one function."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import socket
import traceback
from collections.abc import Callable
from typing import Any

import torch

from netspec.layers.ranks import Ranks
from netspec.run.spread import joined


def several(world: int, function: Callable[..., Any], *args: Any, meaning: str = "whole") -> list[Any]:
    """What `function(ranks, *args)` gives in each of `world` processes; an error of one is raised here."""
    return started(world, inside, function, meaning, *args)


def inside(ranks: Ranks, function: Callable[..., Any], meaning: str, *args: Any) -> Any:
    with joined(meaning, "cpu") as now:
        return function(now, *args)


def started(world: int, function: Callable[..., Any], *args: Any) -> list[Any]:
    """The same with the variables of torchrun alone: the processes join by themselves."""
    context = multiprocessing.get_context("fork")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    pipes = [context.Pipe(duplex=False) for _ in range(world)]
    processes = [
        context.Process(target=child, args=(rank, world, port, pipes[rank][1], function, args))
        for rank in range(world)
    ]
    for process in processes:
        process.start()
    answers = []
    for (ours, theirs), process in zip(pipes, processes, strict=True):
        theirs.close()
        try:
            answers.append(pickle.loads(ours.recv_bytes()))
        except EOFError:
            process.join()
            answers.append((False, f"ended with {process.exitcode}"))
    for process in processes:
        process.join()
    if wrong := [f"process {rank}: {text}" for rank, (well, text) in enumerate(answers) if not well]:
        raise RuntimeError("\n".join(wrong))
    return [value for _, value in answers]


def child(
    rank: int, world: int, port: int, pipe: Any, function: Callable[..., Any], args: tuple[Any, ...]
) -> None:
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    here = {
        "RANK": rank,
        "LOCAL_RANK": rank,
        "WORLD_SIZE": world,
        "LOCAL_WORLD_SIZE": world,
        "MASTER_PORT": port,
    }
    os.environ.update({name: str(value) for name, value in here.items()} | {"MASTER_ADDR": "127.0.0.1"})
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        pipe.send_bytes(pickle.dumps((True, function(Ranks(rank, world), *args))))
    except BaseException as error:
        pipe.send_bytes(pickle.dumps((False, "".join(traceback.format_exception(error)))))
    finally:
        pipe.close()
