"""What must hold of a layer: a function per check, which takes the layer's class and a case.

A check that fails raises Failed with the reason; one that does not apply to the case raises NotApplicable.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor, nn
from torch.autograd.gradcheck import GradcheckError, gradcheck

from netspec import schema
from netspec.errors import NetspecError
from netspec.layers.base import Layer, exactly
from netspec.layers.traits import FAMILIES, ROLES
from netspec.net.net import Net
from netspec.testing.case import Case

Check = Callable[[type[Layer], Case], None]


class Failed(Exception):
    """A check does not hold; the message says what was seen and what to do."""


class NotApplicable(Exception):
    """A check does not apply to this case; the message says why."""


def demand(condition: object, message: str) -> None:
    """Raise Failed with the message unless the condition holds."""
    if not condition:
        raise Failed(message)


# What the class says


def says(kind: type[Layer], name: str) -> bool:
    """Whether the class, or one between it and Layer, sets the attribute."""
    return any(name in vars(base) for base in kind.__mro__[: kind.__mro__.index(Layer)])


def family(kind: type[Layer], case: Case) -> None:
    """The class says its family, one of `netspec.layers.traits.FAMILIES`; losses, and they alone, are `is_loss`."""
    demand(says(kind, "family"), "the class does not set `family`; it is one of " + ", ".join(FAMILIES))
    demand(kind.family in FAMILIES, f"family {kind.family!r} is none of {', '.join(FAMILIES)}")
    demand(
        (kind.family == "loss") == kind.is_loss, f"family is {kind.family!r} but is_loss is {kind.is_loss}"
    )
    demand(
        kind.family == "data" or not kind.is_source, f"is_source, but family is {kind.family!r}, not 'data'"
    )


def roles(kind: type[Layer], case: Case) -> None:
    """The class says what each bottom is, in words of `netspec.layers.traits.ROLES`."""
    demand(says(kind, "roles"), "the class does not set `roles`, a word per bottom")
    for role in kind.roles:
        demand(role in ROLES, f"role {role!r} is none of {', '.join(ROLES)}")
    demand(kind.roles or kind.bottoms.least == 0, f"takes {kind.bottoms} bottoms but `roles` is empty")
    demand(not kind.roles or kind.bottoms != exactly(0), f"takes no bottom but has roles {kind.roles}")
    most = kind.bottoms.most
    demand(
        most is None or len(kind.roles) <= most,
        f"{len(kind.roles)} roles for {kind.bottoms} bottoms: {kind.roles}",
    )


def documentation(kind: type[Layer], case: Case) -> None:
    """The class has a docstring of its own whose first sentence ends, and each field of its message a comment."""
    text = inspect.cleandoc(vars(kind).get("__doc__") or "")
    demand(text, "the class has no docstring; its first sentence becomes the line of the layer table")
    demand("." in text or ":" in text, f"the docstring's first sentence has no end: {text.splitlines()[0]!r}")
    if kind.param_field is None:
        return
    message = schema.descriptor("LayerParameter").fields_by_name.get(kind.param_field)
    if message is None:
        raise Failed(f"param_field {kind.param_field!r} is no field of LayerParameter")
    for field in message.message_type.fields:
        demand(
            schema.describe(message.message_type.name, field.name),
            f"the field {field.name} of {message.message_type.name} has no comment in the schema",
        )


def cost(kind: type[Layer], case: Case) -> None:
    """A layer with weights, or with two maps as bottoms, says how many products it adds up."""
    net = case.net("meta")
    for reads, writes, layer in steps(net, kind):
        maps = [i for i in range(len(reads)) if layer.role(i, len(reads)) == "image"]
        if not layer.blobs and (len(maps) <= 1 or layer.paired):
            continue
        number = layer.multiply_adds(
            [net.shapes[slot] for slot in reads], [net.shapes[slot] for slot in writes]
        )
        remedy = "set `products` or define `multiply_adds`"
        demand(number is not None, f"multiply_adds is unknown (None); {remedy}")
        told = says(type(layer), "products") or says(type(layer), "multiply_adds")
        demand(number or told, f"multiply_adds is 0 though it has weights or two maps; {remedy}")


def steps(net: Net, kind: type[Layer]) -> Iterator[tuple[tuple[int, ...], tuple[int, ...], Layer]]:
    """(slots read, slots written, layer) of each step of the net whose layer has the class."""
    from netspec.layers.base import registry

    for step, layer in zip(net.graph.steps, net.made, strict=True):
        if isinstance(layer, kind) or registry.get(step.layer.type) is kind:
            yield tuple(step.reads), tuple(step.writes), layer


# What the layer computes


def run(net: Net, values: list[Tensor]) -> tuple[Tensor, ...]:
    """The net's tops; what is drawn in it is the same in each call."""
    torch.manual_seed(3)
    tops: tuple[Tensor, ...] = net(*values)
    return tops


def shapes(kind: type[Layer], case: Case) -> None:
    """Tops have the shapes that the meta device foretold, and are float32."""
    net = case.net()
    for slot, value in net.slots(*case.values(net)).items():
        name, told = net.graph.name(slot), net.shapes[slot]
        demand(
            tuple(value.shape) == told,
            f"blob {name!r} has shape {tuple(value.shape)} when it runs, and {told} on the meta device",
        )
        demand(value.dtype == torch.float32, f"blob {name!r} is {value.dtype}, not torch.float32")


def bottoms(kind: type[Layer], case: Case) -> None:
    """Forward writes into no bottom."""
    net = case.net()
    given = case.values(net)
    copies = [value.clone() for value in given]
    run(net, given)
    for name, value, copy in zip(net.input_names, given, copies, strict=True):
        demand(torch.equal(value.nan_to_num(), copy.nan_to_num()), f"forward wrote into the bottom {name!r}")


def trained(net: Net) -> list[tuple[str, nn.Parameter]]:
    """(name, parameter) of those that learn."""
    names = {id(value): name for name, value in net.named_parameters()}
    return [(names[id(param.value)], param.value) for param in net.params if param.lr_mult != 0]


def gradients(kind: type[Layer], case: Case) -> None:
    """In float64 the gradients of tops with respect to bottoms and blobs are those of finite differences."""
    if case.random or case.gradient == ():
        raise NotApplicable("no gradient to check")
    net = case.net().double()
    values = case.values(net, torch.float64)
    wanted = case.to_differentiate(net)
    for name, value in zip(net.input_names, values, strict=True):
        value.requires_grad_(name in wanted)
    parameters = trained(net)
    for _, parameter in parameters:
        parameter.requires_grad_(True)

    def tops(*changed: Tensor) -> tuple[Tensor, ...]:
        state = dict(zip((name for name, _ in parameters), changed[len(values) :], strict=True))
        outputs = torch.func.functional_call(net, state, changed[: len(values)], tie_weights=True)
        return tuple(top for top in outputs if top.requires_grad)

    inputs = (*values, *(parameter for _, parameter in parameters))
    try:
        gradcheck(tops, inputs, atol=case.atol, rtol=1e-4)
    except GradcheckError as error:
        names = [*net.input_names, *(f"parameter {name}" for name, _ in parameters)]
        order = ", ".join(f"{i} {name}" for i, name in enumerate(names))
        raise Failed(f"{' '.join(str(error).split())[:400]} (inputs: {order})") from error


def missing(kind: type[Layer], case: Case) -> None:
    """Where a value is missing (NaN) and the tops are finite all the same, every gradient is finite."""
    if case.random or case.gradient == ():
        raise NotApplicable("no gradient to check")
    net = case.net()
    for name in case.to_differentiate(net):
        values = case.values(net)
        if not values[net.input_names.index(name)].numel():
            continue
        for i, other in enumerate(net.input_names):
            if other in case.to_differentiate(net):
                values[i] = values[i].clone().requires_grad_()
        at = net.input_names.index(name)
        with torch.no_grad():
            values[at].view(-1)[0] = torch.nan
        try:
            tops = [top for top in run(net, values) if top.requires_grad]
        except (NetspecError, torch.linalg.LinAlgError):  # type: ignore[attr-defined]
            continue  # the layer refuses NaN here, and says so
        if not tops or not all(bool(top.isfinite().all()) for top in tops):
            continue  # the layer passes NaN on
        given = [(n, v) for n, v in zip(net.input_names, values, strict=True) if v.requires_grad]
        both = [*given, *((f"parameter {n}", p) for n, p in trained(net) if p.requires_grad)]
        grads = torch.autograd.grad(sum_of(tops), [value for _, value in both], allow_unused=True)
        for (to, _), grad in zip(both, grads, strict=True):
            demand(
                grad is None or bool(grad.isfinite().all()),
                f"with a missing value in {name!r} the tops are finite but the gradient of {to!r} is not; decide "
                "once what is missing: seen = ~x.isnan(); x = where(seen, x, 0); y = where(seen, f(x), 0)",
            )


def sum_of(tops: list[Tensor]) -> Tensor:
    """All values of all tops added up."""
    return torch.stack([top.sum() for top in tops]).sum()


def compilation(kind: type[Layer], case: Case) -> None:
    """torch.compile takes the whole graph, and the compiled net gives what the eager one gives."""
    if not case.compiles:
        raise NotApplicable("runs eagerly by its nature")
    net = case.net()
    values = case.values(net)
    torch.compiler.reset()
    tops = run(torch.compile(net, backend="aot_eager", fullgraph=True), values)  # type: ignore[arg-type]
    compare(tops, run(case.net(), values), "compiled", case.random)


def export(kind: type[Layer], case: Case) -> None:
    """torch.export takes the net, and the exported program gives what the net gives."""
    if not case.exports:
        raise NotApplicable("not exportable by its nature")
    net = case.net()
    values = case.values(net)
    with torch.no_grad():
        program = torch.export.export(net, tuple(values)).module()
        torch.manual_seed(3)
        compare(program(*values), run(case.net(), values), "exported", case.random)


def compare(tops: tuple[Tensor, ...], eager: tuple[Tensor, ...], how: str, random: bool) -> None:
    """Compare tops with those of the eager net: within 1e-4 relative plus 1e-5, or only their shapes where they are
    random.
    """
    for i, (ours, theirs) in enumerate(zip(tops, eager, strict=True)):
        demand(
            ours.shape == theirs.shape,
            f"top {i} has shape {tuple(ours.shape)} {how}, and {tuple(theirs.shape)} eager",
        )
        if not random:
            near = partial(torch.allclose, rtol=1e-4, atol=1e-5, equal_nan=True)
            worst = (ours - theirs).detach().abs().nan_to_num().max() if ours.numel() else 0.0
            demand(near(ours, theirs), f"top {i} differs {how} from eager by up to {float(worst):g}")


CHECKS: dict[str, Check] = {
    "family": family,
    "roles": roles,
    "documentation": documentation,
    "cost": cost,
    "shapes": shapes,
    "bottoms": bottoms,
    "gradients": gradients,
    "missing": missing,
    "compilation": compilation,
    "export": export,
}
"""Every check by its name, in the order in which they run."""
