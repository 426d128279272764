"""check_layer: a sound layer passes every check, and each fault is told by the check that is for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from netspec.layers import registry
from netspec.layers.base import Layer, exactly, register
from netspec.testing import CHECKS, Case, LayerCheckError, check_layer


@pytest.fixture(autouse=True)
def own_registry() -> Iterator[None]:
    """What a test registers is gone after it."""
    before = dict(registry)
    yield
    registry.clear()
    registry.update(before)


def case(type_: str = "Twice", **options: object) -> Case:
    text = f"""
        layer {{ name: "x" type: "Input" top: "x" input_param {{ shape {{ dim: 2 dim: 3 }} }} }}
        layer {{ name: "y" type: "{type_}" bottom: "x" top: "y" }}
    """
    return Case("twice", text, **options)  # type: ignore[arg-type]


def twice(**changes: object) -> type[Layer]:
    """A registered layer y = 2 x, with what is changed of it."""

    def forward(self: Layer, *bottoms: Tensor) -> Tensor:
        return 2 * bottoms[0]

    sound = {
        "__doc__": "y = 2 x, for each value.",
        "family": "pointwise",
        "roles": ("values",),
        "forward": forward,
    }
    return register("Twice")(type("Twice", (Layer,), {**sound, **changes}))


def failures(kind: type[Layer], one: Case) -> dict[str, str]:
    with pytest.raises(LayerCheckError) as caught:
        check_layer(kind, one)
    for name, reason in caught.value.failures.items():
        assert f"  {name}: {reason}" in str(caught.value).splitlines()
    return caught.value.failures


def test_a_sound_layer_passes() -> None:
    assert check_layer(twice(), case()) == dict.fromkeys(CHECKS)


def test_a_check_that_does_not_apply_says_why() -> None:
    outcome = check_layer(twice(), case(gradient=(), compiles=False, exports=False))
    assert {name for name, why in outcome.items() if why} == {"gradients", "missing", "compilation", "export"}
    assert outcome["export"] == "not exportable by its nature"


def test_an_unknown_check() -> None:
    with pytest.raises(ValueError, match="there is no check 'gradient'; did you mean 'gradients'"):
        check_layer(twice(), case(), ["gradient"])


def test_a_class_that_is_not_registered() -> None:
    class Loose(Layer):
        pass

    assert failures(Loose, case())["registered"].endswith("write @netspec.register('Loose') above it")


def test_a_case_of_another_layer() -> None:
    assert failures(twice(), case("ReLU")) == {"case": "the net has no layer of type Twice, only Input, ReLU"}


@pytest.mark.parametrize(
    ("changes", "check", "says"),
    [
        ({"family": "sums"}, "family", "family 'sums' is none of data, convolution"),
        ({"family": "loss"}, "family", "family is 'loss' but is_loss is False"),
        ({"roles": ("pixels",)}, "roles", "role 'pixels' is none of values, image"),
        ({"roles": ()}, "roles", "takes 1 bottoms but `roles` is empty"),
        ({"roles": ("image", "image")}, "roles", "2 roles for 1 bottoms"),
        ({"__doc__": None}, "documentation", "has no docstring"),
        ({"__doc__": "doubles"}, "documentation", "first sentence has no end"),
    ],
)
def test_what_a_class_must_say(changes: dict[str, object], check: str, says: str) -> None:
    failed = failures(twice(**changes), case())
    assert list(failed) == [check]
    assert says in failed[check]


def test_a_family_that_is_not_said() -> None:
    kind = twice()
    del kind.family  # that of Layer remains
    assert "the class does not set `family`" in failures(kind, case())["family"]


def test_a_layer_whose_cost_is_unknown() -> None:
    def setup(self: Layer, *shapes: tuple[int, ...]) -> None:
        self.add_blob((3,))

    def forward(self: Layer, *bottoms: Tensor) -> Tensor:
        return bottoms[0] * self.blob(0)

    failed = failures(twice(setup=setup, forward=forward), case())
    assert failed == {
        "cost": "multiply_adds is 0 though it has weights or two maps; set `products` or define `multiply_adds`"
    }


class Halved(torch.autograd.Function):
    """2 x, with half its gradient."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return 2 * x

    @staticmethod
    def backward(ctx: object, grad: Tensor) -> Tensor:  # type: ignore[override]
        return grad


def writes(x: Tensor) -> Tensor:
    with torch.no_grad():
        x.mul_(2)
    return 1 * x


def spoils(x: Tensor) -> Tensor:
    """NaN becomes 0 after the square root, whose gradient stays NaN: a single `where`."""
    y = (x * x + 1).sqrt()
    return torch.where(x.isnan(), 0.0, y)


def branches(x: Tensor) -> Tensor:
    return 2 * x if x.sum() > 0 else 3 * x


@pytest.mark.parametrize(
    ("compute", "check", "says"),
    [
        (Halved.apply, "gradients", "Jacobian mismatch"),
        (writes, "bottoms", "forward wrote into the bottom 'x'"),
        (spoils, "missing", "the tops are finite but the gradient of 'x' is not"),
        (lambda x: x.double(), "shapes", "blob 'y' is torch.float64, not torch.float32"),
    ],
)
def test_what_a_layer_must_compute(compute: Callable[[Tensor], Tensor], check: str, says: str) -> None:
    failed = failures(twice(forward=lambda self, x: compute(x)), case())
    assert says in failed[check]


def test_a_layer_that_branches_on_values_is_neither_compiled_nor_exported() -> None:
    infer = {"infer": lambda self, x: (torch.empty_like(x, device="meta"),)}
    failed = failures(twice(forward=lambda self, x: branches(x), **infer), case())
    assert set(failed) == {"compilation", "export"}
    assert failed["compilation"].startswith("raised ")
    assert "\n" not in failed["compilation"]


def test_a_wrong_shape_on_the_meta_device() -> None:
    failed = failures(twice(infer=lambda self, x: (torch.empty(2, 4, device="meta"),)), case())
    assert failed["shapes"] == "blob 'y' has shape (2, 3) when it runs, and (2, 4) on the meta device"


def test_a_compiled_net_that_computes_something_else() -> None:
    def forward(self: Layer, *bottoms: Tensor) -> Tensor:
        return bottoms[0] * (3 if torch.compiler.is_compiling() else 2)

    failed = failures(twice(forward=forward), case())
    assert failed["compilation"].startswith("top 0 differs compiled from eager by up to")
    assert failed["export"].startswith("top 0 differs exported from eager by up to")


def test_layers_without_bottoms_have_no_roles() -> None:
    failed = failures(twice(bottoms=exactly(0), roles=("image",)), case())
    assert "takes no bottom but has roles ('image',)" in failed["roles"]
