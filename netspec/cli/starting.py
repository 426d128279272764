"""Commands to begin with: the nets that come with netspec, and new ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from netspec.errors import NetspecError
from netspec.schema import shipped

app = typer.Typer()


@app.command("list")
def list_nets(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per net.")] = False,
) -> None:
    """List the nets that come with netspec: every command takes them by name."""
    nets = shipped.nets()
    if as_json:
        for net in nets:
            facts = {"name": net.name, "about": net.about, "solvers": net.solvers, "path": str(net.path)}
            print(json.dumps(facts))
        return
    width = max(len(net.name) for net in nets)
    for net in nets:
        print(f"{net.name:<{width}}  {net.about}")
    print("\nnetspec train NAME trains one; netspec summary NAME and netspec draw NAME show it.")


@app.command()
def new(
    name: Annotated[
        Path | None,
        typer.Argument(metavar="NAME", help="Net to make: NAME.prototxt and NAME_solver.prototxt."),
    ] = None,
    images: Annotated[bool, typer.Option("--images", help="Over images (the default).")] = False,
    table: Annotated[
        bool, typer.Option("--table", help="Over the rows of a table; `netspec arrange` takes yours.")
    ] = False,
    caffe: Annotated[bool, typer.Option("--caffe", help="A convolutional net as Caffe has it.")] = False,
    solver: Annotated[
        Path | None, typer.Option(metavar="NET", help="Write a solver for this net, which has none.")
    ] = None,
) -> None:
    """Make a net with its solver that trains as it stands, to change from there."""
    if solver is not None:
        if name is not None or images or table or caffe:
            raise NetspecError("--solver NET writes the solver of a net that is there; give no other")
        files = [solver_beside(solver)]
        name = solver
    else:
        kinds = [kind for kind, on in (("images", images), ("table", table), ("caffe", caffe)) if on]
        if name is None or len(kinds) > 1:
            raise NetspecError("give the net a NAME, and at most one of --images, --table and --caffe")
        files = table_net(name) if table else shipped.begin(kinds[0] if kinds else "images", name)
    for file in files:
        print(file)
    print(f"netspec train {files[0] if solver is None else name}")


def table_net(name: Path) -> list[Path]:
    """A net over scikit-learn's table of irises, as `netspec arrange` makes one of any table."""
    from netspec.experiments.tables import Arrangement, arrange_table

    net = name.with_name(f"{name.name.removesuffix('.prototxt')}.prototxt")
    shipped.refuse_taken([net, net.with_name(f"{net.stem}_solver.prototxt")])
    told = arrange_table(Arrangement("sklearn_iris"), net)
    return [told.net, told.solver]


def solver_beside(net: Path) -> Path:
    """Write the solver of a net that is right and has none."""
    from netspec import schema

    message = schema.read_net(net).message
    sources = [layer for layer in message.layer if not layer.bottom]
    tests = any(
        all(rule.phase != schema.enum("Phase").values_by_name["TRAIN"].number for rule in layer.include)
        for layer in sources
    )
    return shipped.begin_solver(net, tests)
