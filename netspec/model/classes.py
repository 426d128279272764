"""Classes of pictures: the likeliest by its name, and the probability of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from netspec.data.tables.reading import Cells
from netspec.errors import DataError
from netspec.model.inputs import given
from netspec.model.model import Model


def classes_of(
    trained: Model, images: Sequence[str], say: Callable[[str], None] | None = None
) -> tuple[list[str], list[Cells]]:
    """(names of the columns, the columns) of a table with a row per picture: its name, its class where that is known,
    the predicted class, and the probability of every class.
    """
    if trained.net.shapes[trained.net.graph.outputs[0]][1] == 1:
        raise DataError(f"{trained.name}: was trained without classes; ask for likelihood, or complete")
    asked = given(trained, images, "0:10")
    for note in asked.notes:
        if say is not None:
            say(note)
    if asked.holes is not None and not trained.takes_missing:
        raise DataError(f"{trained.name}: the net takes no missing pixels, and the pictures have some (NaN)")
    probabilities = trained.log_probabilities(trained.from_pixels(asked.pixels)).double().exp().cpu()
    names = [trained.class_name(i) for i in range(probabilities.shape[1])]
    columns: list[Cells] = [list(asked.names)]
    heads = ["image"]
    if any(label >= 0 for label in asked.labels):
        heads.append("label")
        columns.append([trained.class_name(label) for label in asked.labels])
    heads += ["class", *(f"p({name})" for name in names)]
    columns.append([names[int(i)] for i in probabilities.argmax(1)])
    columns += [[f"{p:.6g}" for p in column] for column in probabilities.t().tolist()]
    return heads, columns
