"""check_layer: runs every check of a layer and reports all failures together."""

from __future__ import annotations

from collections.abc import Sequence

from netspec import schema
from netspec.errors import did_you_mean, one_line
from netspec.layers.base import Layer, registry
from netspec.testing.case import Case
from netspec.testing.checks import CHECKS, Failed, NotApplicable


class LayerCheckError(AssertionError):
    """One or more checks of a layer do not hold; `failures` has the reason by the check's name."""

    def __init__(self, title: str, failures: dict[str, str]):
        self.failures = failures
        super().__init__("\n".join([title, *(f"  {name}: {reason}" for name, reason in failures.items())]))


def check_layer(
    kind: type[Layer], case: Case, checks: Sequence[str] = tuple(CHECKS)
) -> dict[str, str | None]:
    """Check a registered layer class as every layer of netspec is checked.

    kind: the class, as `netspec.register` was given it.
    case: a net in which a layer of this class stands; several cases try several sets of fields.
    checks: names of `CHECKS`; all of them by default.
    Returns, for each check by name, None where it holds, or why it does not apply to the case.
    Raises LayerCheckError with a line per check that fails, ValueError for an unknown name of a check.
    """
    for name in checks:
        if name not in CHECKS:
            raise ValueError(
                f"there is no check {name!r}{did_you_mean(name, CHECKS)}; there are {', '.join(CHECKS)}"
            )
    title = f"{kind.__name__}, case {case.name!r}:"
    names = [name for name, registered in registry.items() if registered is kind]
    if not names:
        reason = f"the class is not registered; write @netspec.register({kind.__name__!r}) above it"
        raise LayerCheckError(title, {"registered": reason})
    types = [layer.type for layer in schema.parse_net(case.text, f"{case.name}.prototxt").message.layer]
    if not set(types) & set(names):
        reason = f"the net has no layer of type {' or '.join(names)}, only {', '.join(types) or 'none'}"
        raise LayerCheckError(title, {"case": reason})
    outcome: dict[str, str | None] = {}
    failures: dict[str, str] = {}
    cause: Exception | None = None
    for name in checks:
        try:
            CHECKS[name](kind, case)
            outcome[name] = None
        except NotApplicable as reason:
            outcome[name] = str(reason)
        except Failed as failure:
            failures[name], cause = str(failure), cause or failure
        except Exception as error:  # whatever a layer's own code raises is the answer
            failures[name] = f"raised {type(error).__name__}: {one_line(error)}"
            cause = cause or error
    if failures:
        raise LayerCheckError(title, failures) from cause
    return outcome
