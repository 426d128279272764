"""Answers options that people know from other programs with the matching flag or `--set`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from netspec.errors import did_you_mean

FIELDS = {
    "lr": "base_lr",
    "learning-rate": "base_lr",
    "wd": "weight_decay",
    "l2": "weight_decay",
    "decay": "weight_decay",
    "optimizer": "type",
    "optim": "type",
    "scheduler": "lr_policy",
    "lr-schedule": "lr_policy",
    "beta1": "momentum",
    "beta2": "momentum2",
    "eps": "delta",
    "log-interval": "display",
    "save-every": "snapshot",
    "eval-every": "test_interval",
    "grad-clip": "clip_gradients",
    "accumulate": "iter_size",
}
"""Fields of a solver by the names that other programs give them."""
OPTIONS = {
    "gpu": "--device cuda:{}",
    "gpus": "--device cuda:{}",
    "cuda": "--device cuda",
    "cpu": "--device cpu",
    "steps": "--iterations {}",
    "iters": "--iterations {}",
    "max-steps": "--iterations {}",
    "max-iter": "--iterations {}",
    "output": "--out {}",
    "output-dir": "--out {}",
    "checkpoint": "--resume {}",
    "snapshot-file": "--resume {}",
    "pretrained": "--weights {}",
    "ckpt": "--weights {}",
    "solver": "{}",
    "model": "{}",
    "config": "{}",
    "verbose": "--debug",
    "v": "--version",
}
"""What to write in place of an option of another program; {} is its value."""
EPOCHS = "epochs have no field: --iterations N, where N = epochs x images / batch_size"
BATCH = "the batch size is a field of the data layer: --set data.{}_param.batch_size={}"
SOLVED = ("train", "sweep")
"""Commands that take `--set`."""


def hint(
    arguments: Sequence[str], commands: Mapping[str, Collection[str]], fields: Collection[str]
) -> str | None:
    """A hint about the first option that no netspec command has; None where the usual answer is as good.

    arguments: those of the command line. commands: the options that each command takes. fields: those of a solver.
    """
    command = next((word for word in arguments if word in commands), None)
    known = commands.get(command or "", ())
    for i, word in enumerate(arguments):
        if word == "--":
            return None
        name, _, value = word.lstrip("-").partition("=")
        if not word.startswith("--") or f"--{name}" in known or f"--{name}" in commands.get("", ()):
            continue
        after = arguments[i + 1] if i + 1 < len(arguments) else ""
        value = value or (after if not after.startswith("--") and after not in commands else "")
        instead = meant(name, value or "VALUE", command or "train", known, fields)
        if instead is None:
            return None
        where = f"netspec {command}" if command else "netspec"
        return f"{where} has no option --{name}: {instead}"
    return None


def meant(name: str, value: str, command: str, known: Collection[str], fields: Collection[str]) -> str | None:
    """The netspec form of `--name value`."""
    plain = name.lower().replace("_", "-")
    if plain in ("epochs", "epoch", "num-epochs", "max-epochs"):
        return EPOCHS
    if plain in ("batch-size", "batch", "bs"):
        return BATCH.format("dataset", value)
    field = FIELDS.get(plain, plain.replace("-", "_"))
    option = OPTIONS.get(plain, "").format(value)
    flag = f"--{plain}"
    if flag in known:
        return f"write {flag} {value}"
    if option and (
        option.split(" ")[0] in known or not option.startswith("--") or option in ("--debug", "--version")
    ):
        return f"write {option}"
    if field in fields and command in SOLVED:
        return f"a solver's fields are set with --set {field}={value}"
    if field in fields:
        return f"{field} is a field of a solver: netspec train FILE --set {field}={value}"
    near = did_you_mean(field, fields)
    return f"a solver's fields are set with --set FIELD=VALUE{near}" if near and command in SOLVED else None
