"""Model: a trained net that answers questions, with its weights, units, data and latent tree."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from functools import cached_property
from math import isnan, log
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from netspec.data.binarising import binarised, binary_seed
from netspec.data.class_names import class_names, class_number
from netspec.data.files.idx import Array
from netspec.data.sets.datasets import load as load_data
from netspec.data.sources.pictures import part_of
from netspec.data.sources.table import layout_of
from netspec.data.tables.columns import CATEGORY
from netspec.data.tables.table import Layout
from netspec.data.transform import Transformer, near
from netspec.errors import DataError, NetspecError, SpecError
from netspec.interchange import snapshot_files
from netspec.interchange.comparison import net_file
from netspec.interchange.dialects import told
from netspec.interchange.weights import Weights, take_weights
from netspec.layers.tree import Leaf
from netspec.model.deploy import Deployed, deploy
from netspec.model.taking import Named, as_blob, is_frame, warned
from netspec.net import reading
from netspec.net.allocator import keep_freed_memory
from netspec.net.make import make_net
from netspec.net.net import Net
from netspec.queries import explain, likelihood, marginals, most_probable, sampling, whitened
from netspec.queries.precision import SINGLE
from netspec.queries.tree import Tree
from netspec.queries.whitened import Whitened
from netspec.schema import spec
from netspec.schema.spec import TEST

BATCH = 100
VALUES = ("HDF5Data", "Input", "Table")
"""Data layers whose values are no grey levels."""
Data = Any
"""What `Model.take` makes a blob of: a tensor, an array, lists, or a frame of a table."""
T = TypeVar("T")


def load(
    path: str | Path,
    weights: Weights | None = None,
    stages: Collection[str] = (),
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Model:
    """The model of a run folder, or of a prototxt with its weights; its TEST net, which needs no labels.

    path: a run folder (its test net and the weights of its newest good snapshot) or a net's prototxt.
    stages: the stages of the net; for a run folder by default the stages of its first test net.
    weights: a weight file or blobs by name; they replace the snapshot's weights of a run folder. A prototxt without
    weights gives the net as its fillers make it.
    dtype: torch.float32 or torch.float64, for weights and answers. Queries of a float32 model switch to double
    precision on their own where log p is too large for single precision.
    Raises SpecError, SnapshotError or DataError that names what is missing.

    >>> import netspec
    >>> model = netspec.load("ht_cac_digits")  # as its fillers make it; with a run folder, as it was trained
    >>> model.image_shape
    (1, 8, 8)
    """
    if dtype not in (torch.float32, torch.float64):
        raise NetspecError(f"dtype {dtype}: a model has torch.float32 or torch.float64")
    keep_freed_memory()
    path = Path(path)
    file = path
    if path.is_dir():
        file, stages = net_file(path), stages or tested_stages(path)
        if weights is None:
            weights = snapshot_files.newest_aloud(path).weights
    net_spec = spec.net(reading.read(file, "net"), TEST, stages)
    deployed = deploy(net_spec if weights is None else told(net_spec, weights))
    net = make_net(deployed.spec, device=device).to(dtype)
    if weights is not None:
        take_weights(net, weights, need="all")
    return Model(net, deployed, str(path))


def tested_stages(run: Path) -> tuple[str, ...]:
    """The stages of a run's first test net, as its solver has them."""
    solver = run / "solver.prototxt"
    if not solver.is_file():
        return ()
    states = reading.read(solver, "solver").message.test_state
    return tuple(states[0].stage) if states else ()


class Model:
    """A TEST net in its own units: x (N, C, H, W) is the net's input, NaN where a pixel is missing.

    Every method takes any N and works through it in batches of `batch`; nothing here keeps gradients.

    >>> import numpy as np, netspec
    >>> model = netspec.load("ht_cac_digits")
    >>> x = model.from_pixels(np.zeros((2, 1, 8, 8), np.uint8))
    >>> posterior = model.posterior(x)
    >>> tuple(posterior.shape), bool(((posterior.sum(1) - 1).abs() < 1e-5).all())
    ((2, 10), True)
    """

    def __init__(self, net: Net, deployed: Deployed, name: str = "", batch: int = BATCH):
        self.net = net.requires_grad_(False)
        self.deployed, self.name, self.batch = deployed, name, batch
        self.data = deployed.data
        self.image_shape: tuple[int, int, int] = tuple(net.shapes[net.graph.inputs[0]][1:])  # type: ignore[assignment]
        """(C, H, W) of x."""
        self.transform = Transformer(self.data, TEST, 0, resizes=True)
        self.transform.mirror = False
        p = self.data.message.dataset_param
        self.fill = float(p.missing.value) if p.HasField("missing") else float("nan")
        """The value at missing pixels for a net that also reads the mask."""

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.net.params[0].value.device if self.net.params else torch.device("cpu")

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights, and so of the answers."""
        return self.net.params[0].value.dtype if self.net.params else torch.get_default_dtype()

    @property
    def discrete(self) -> bool:
        """Whether the leaves give probabilities of single values, so that bits measure a code length."""
        return self.tree.leaf.discrete

    @property
    def joint(self) -> bool:
        """Whether the classes have shares of their own (ClassPrior), so that `scores` are log p(observed, y)."""
        return self.generative and self.tree.joint

    @cached_property
    def tree(self) -> Tree:
        """The net as a probability model of x; SpecError names the layer that rules this out."""
        tree, graph = Tree(self.net), self.net.graph
        if tree.pixels != graph.inputs[0]:
            leaf = next(step for step in graph.steps if issubclass(step.kind, Leaf))
            why = (
                "reads no pixels, but what other layers make of them; queries need the leaf right at the data"
            )
            raise SpecError([leaf.layer.problem(why, "bottom", 0)])
        return tree

    @cached_property
    def whitened(self) -> Whitened | None:
        """The net as a tree behind a whitening convolution, where it is one (the NORB nets)."""
        return whitened.find(self.net)

    @cached_property
    def masked(self) -> bool:
        """Whether the original's masks of ones, of a fixed batch size, stand between the layers of the tree."""
        return any(step.layer.type == "DummyData" for step in self.net.graph.steps) and self.generative

    @property
    def generative(self) -> bool:
        """Whether `tree` can be had."""
        try:
            return self.tree is not None
        except SpecError:
            return False

    # Units

    @property
    def unit(self) -> float:
        """Size of one grey level in the units of x: a density times this is about a level's probability."""
        return float(self.transform.scale)

    def from_pixels(self, pixels: Array, observed: Array | None = None) -> Tensor:
        """x of pixels 0..255 (N, C, H, W), uint8 or float; NaN where `observed` (N, 1 or C, H, W) is false. Binary
        pixels are drawn, or cut at a threshold, as the net's data layer does it.
        """
        pixels = np.asarray(pixels)
        if binary := self.data.message.dataset_param.binarize:
            places = np.arange(len(pixels))
            pixels = binarised(pixels, binary, binary_seed(self.data, 0), places, places)
        x = self.transform(pixels, np.arange(len(pixels))).astype(np.float32)
        if observed is not None:
            x[np.broadcast_to(np.asarray(observed) == 0, x.shape)] = np.nan
        return torch.from_numpy(x).to(self.device)

    def to_pixels(self, x: Tensor) -> Array:
        """The inverse of `from_pixels`, float32, NaN where missing; grey levels are clipped to 0..255."""
        pixels = x.detach().cpu().numpy().astype(np.float32) / self.transform.scale
        if len(self.transform.values):
            pixels = pixels + self.transform.values[:, None, None]
        elif self.transform.mean is not None:
            pixels = pixels + self.transform.place(self.transform.mean[None], np.zeros(1, np.int64))
        if self.data.type in VALUES:
            return pixels
        clipped: Array = np.clip(pixels, 0, 255)
        return clipped

    def images(
        self, split: str | None = None, begin: int | None = None, end: int | None = None
    ) -> tuple[Array, Array]:
        """(pixels (N, C, H, W) uint8 as the net's data layer orders channels, labels (N,) int64) of the
        named data set, or of pictures of one's own; -1 is the label of a picture without one.

        split, begin, end: by default the TEST data layer's own. Raises DataError for a net that names no
        data set.
        """
        if self.data.type == "Pictures":
            return part_of(self.data, split or "", begin, end)
        if self.data.type != "Dataset":
            raise DataError(f"{self.data.at()}: {self.data} names no data set; give the images themselves")
        p = self.data.message.dataset_param
        own = split is None
        data = load_data(p.name, p.split if own else str(split), p.stand_in)
        begin = int(p.begin) if own and begin is None else begin
        end = int(p.end) if own and end is None and p.HasField("end") else end
        pixels, labels = data.images[begin:end], data.labels[begin:end].astype(np.int64)
        if not len(labels):
            wanted = f"{begin or 0} to {len(data) if end is None else end}"
            raise DataError(f"data set {p.name!r} has no images {wanted} among its {len(data)}")
        return np.ascontiguousarray(pixels[:, ::-1] if pixels.shape[1] == 3 else pixels), labels

    @property
    def dataset(self) -> str:
        """Name of the data set, '' when the data layer names none."""
        return str(self.data.message.dataset_param.name) if self.data.type == "Dataset" else ""

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes in the order of their numbers; () where the data layer does not tell."""
        return class_names(self.data)

    def class_number(self, text: str) -> int:
        """The number of a class that is given by its name or its number; NetspecError where there is none such."""
        return class_number(text, self.class_names, self.tree.classes)

    def class_name(self, number: int) -> str:
        """The name of a class, or its number where it has none; "" for an unknown one (below 0)."""
        if number < 0:
            return ""
        return self.class_names[number] if number < len(self.class_names) else str(number)

    def __repr__(self) -> str:
        """What the model is: its net, its data, what it reads and what it can be asked."""
        shape = "x".join(map(str, self.image_shape))
        count = sum(param.value.numel() for param in self.net.params)
        kind = "generative, takes missing values" if self.generative else (
            "takes missing values" if self.takes_missing else "reads whole data"
        )  # fmt: skip
        classes = f", classes {', '.join(self.class_names[:6])}{', ...' if len(self.class_names) > 6 else ''}"
        return (
            f"<Model {self.net.graph.spec.name!r} of {self.name}: reads {self.data.type} {shape}"
            f"{classes if self.class_names else ''}; {kind}; {count:,} parameters>"
        )

    # Classes

    def scores(self, x: Data) -> Tensor:
        """Class scores (N, K), whose softmax is p(y | observed): log p(observed | y) of a generative net, with
        a ClassPrior log p(observed, y); logits of another.

        In double precision where a generative net's are so large that single would not tell classes apart.
        DataError for evidence that is impossible under a generative net.
        """
        return self.batched(self._scores, self.take(x))

    def inputs(self, x: Tensor) -> list[Tensor]:
        """The net's inputs for x; of a net that reads the mask x with `fill` in its holes, and the mask."""
        if not self.deployed.mask:
            return [x]
        observed = ~x.isnan()
        shape = self.net.shapes[self.net.graph.inputs[1]]
        mask = observed if shape[1] == x.shape[1] else observed.all(1, keepdim=True)
        return [torch.where(observed, x, self.fill), mask.to(x.dtype)]

    def _scores(self, x: Tensor) -> Tensor:
        if self.whitened is not None and bool(x.isnan().any()):
            return self.whitened.scores(x)
        if self.masked:
            return likelihood.scores(self.tree, x, exact=False).to(self.tree.dtype)
        scores: Tensor = self.net(*self.inputs(x))[0]
        if not bool((scores.abs() <= SINGLE).all()) and self.generative:
            return likelihood.scores(
                self.tree, x, exact=False
            )  # single precision would not tell classes apart
        return scores.flatten(1)

    def log_probabilities(self, x: Data) -> Tensor:
        """log p(y | observed) (N, K): the posterior of a generative net, the softmax of another's scores.

        DataError where a generative net's evidence lies so far from all components that classes cannot be told apart.
        """
        if self.generative and not self.deployed.mask:
            return self._ask(likelihood.log_posterior, x)
        return self.scores(x).log_softmax(1)

    def predict(self, x: Data) -> Tensor:
        """The class of the highest score (N,)."""
        return self.scores(x).argmax(1)

    @property
    def takes_missing(self) -> bool:
        """Whether the net itself says what a missing pixel means: it is generative, or reads the mask."""
        return self.generative or self.whitened is not None or (self.deployed.mask and not isnan(self.fill))

    # Queries (see netspec.queries). x may be a tensor, an array or lists of any numeric type, or a frame of a table.

    @property
    def is_table(self) -> bool:
        """Whether the data are rows of a table."""
        return self.data.type == "Table"

    @property
    def layout(self) -> Layout | None:
        """The columns, for a model of a table."""
        return layout_of(self.data.message.table_param, self.source) if self.is_table else None

    @property
    def source(self) -> Path:
        """The file of a model of a table."""
        return near(self.data, self.data.message.table_param.source)

    def take(self, x: Data) -> Tensor:
        """x as the net's input (N, C, H, W); a frame's columns are matched by name and brought to its units.

        DataError says what is expected where x has another shape or holds no numbers.
        """
        blob = as_blob(x, self.image_shape, self.layout if is_frame(x) else None)
        return blob.to(self.dtype)

    def completed_frame(self, x: Data, how: str, seed: int | None = None, y: Data = None) -> Any:
        """A frame of a table with its missing cells filled in, in its own units. DataError for classes beside it."""
        from netspec.model.rows import TableModel

        if y is not None:
            raise DataError(
                f"takes no classes beside a frame; set its column {self.data.message.table_param.target!r}"
            )
        return TableModel(self, warned).completed_frame(x, how, seed or 0)

    def batched(self, query: Callable[..., T], *tensors: Tensor | None) -> T:
        """query(*batch) over pieces of at most `batch` rows of `tensors`, results joined; tuples and lists are joined
        part by part.
        """
        n = next(len(tensor) for tensor in tensors if tensor is not None)
        answers: list[Any] = []
        with torch.no_grad():
            for begin in range(0, max(n, 1), self.batch):
                part = slice(begin, begin + self.batch)
                try:
                    answers.append(query(*(None if t is None else self.taken(t[part]) for t in tensors)))
                except DataError as error:  # counts from the batch's first
                    own = re.sub(r"^image (\d+)", lambda at: f"image {int(at[1]) + begin}", str(error))  # noqa: B023
                    raise DataError(own) from error
        whole: Any
        if isinstance(answers[0], Tensor):
            whole = torch.cat(answers)
        else:
            whole = type(answers[0])(torch.cat(parts) for parts in zip(*answers, strict=True))
        return cast("T", whole)

    def taken(self, tensor: Tensor) -> Tensor:
        """The tensor on the weights' device, and in their precision if it holds reals."""
        return tensor.to(self.device, self.dtype if tensor.is_floating_point() else None)

    def class_log_likelihood(self, x: Data) -> Tensor:
        """log p(observed | y), (N, Y), nats; see `queries.likelihood`. Of a frame in the units of its columns."""
        blob = self.take(x)
        log_p = self._ask(likelihood.class_log_likelihood, blob)
        return log_p - self.log_units(blob)[:, None].to(log_p) if is_frame(x) else log_p

    def log_likelihood(self, x: Data) -> Tensor:
        """log p(observed), (N,), nats; of a frame in the units of its columns, else in those of the net's input."""
        blob = self.take(x)
        log_p = self._ask(likelihood.log_likelihood, blob)
        return (log_p.double() - self.log_units(blob)).to(log_p) if is_frame(x) else log_p

    def log_units(self, x: Tensor) -> Tensor:
        """log of the size of the net's units in those of the table, summed over the observed numbers of each row of x:
        what a density in the table's units is less by (N,); 0 without a table.
        """
        units = torch.zeros(len(x), dtype=torch.float64, device=x.device)
        if self.layout is not None and self.layout.standardise:
            for column, span in self.layout.spans():
                if column.kind != CATEGORY:
                    units += (~x[:, 0, 0, span.start].isnan()).double() * log(column.deviation)
        return units

    def posterior(self, x: Data) -> Tensor:
        """p(y | observed), (N, Y)."""
        return self._ask(likelihood.posterior, x)

    def bits_per_dimension(self, x: Data) -> Tensor:
        """Bits for each observed pixel, (N,): of a code where the leaves are `discrete`; else from a density."""
        return self._ask(lambda tree, part: likelihood.bits_per_dimension(tree, part, self.unit), x)

    def marginals(self, x: Data, y: Data = None) -> Named:
        """Posterior of every latent variable: one blob (N, M, h, w) per level, by number or by its layer's name. All
        are kept in memory, so choose N accordingly.
        """
        return Named(self.tree.names, self._ask(marginals.marginals, x, y))

    def expected_completion(self, x: Data, y: Data = None) -> Any:
        """(mean, standard deviation) of the missing pixels given the observed ones; for a frame the completed frame."""
        if is_frame(x):
            return self.completed_frame(x, "expected", y=y)
        return self._ask(marginals.expected_completion, x, y)

    def level_probabilities(self, x: Data, y: Data = None) -> tuple[Tensor, Tensor]:
        """(values (C, H, W, L), p(value | observed) (N, C, H, W, L)) of pixels with finitely many values."""
        values = []

        def ask(tree: Tree, part: Tensor, given: Tensor | None) -> Tensor:
            levels, p = marginals.level_probabilities(tree, part, given)
            values.append(levels)
            return p

        p = self._ask(ask, x, y)
        return values[0], p

    def most_probable_completion(self, x: Data, y: Data = None) -> Any:
        """x with its missing pixels set to the most probable explanation; a frame is answered in its own units."""
        if is_frame(x):
            return self.completed_frame(x, "most_probable", y=y)
        return self._ask(most_probable.most_probable_completion, x, y)

    def complete(self, x: Data, y: Data = None, seed: int | None = None, noise: bool = True) -> Any:
        """x with its missing pixels drawn from their distribution given the observed ones; a frame is answered in its
        own units.
        """
        if is_frame(x):
            return self.completed_frame(x, "sampled", seed, y)
        generator = self.generator(seed)
        return self._ask(lambda tree, a, b: sampling.complete(tree, a, b, generator, noise), x, y)

    def sample(
        self,
        y: Data,
        seed: int | None = None,
        noise: bool = True,
        given: Sequence[tuple[str, int, int, int]] = (),
    ) -> Tensor:
        """Images drawn from the classes y (N,), conditioned on the latent states `given`: (layer, row, column, state)
        each.
        """
        generator, known = self.generator(seed), self.tree.given(given)
        tree = self.tree
        return self.batched(
            lambda part: sampling.sample(tree, part, generator, noise, known), self.classes(y)
        )

    def contributions(self, x: Data, y: Data, size: int = 1) -> Tensor:
        """What each size x size patch adds to log p(y | x), (N, rows, columns), nats."""
        return self._ask(lambda tree, a, b: explain.contributions(tree, a, b, size), x, y)

    def information_gain(self, x: Data, draws: int = 8, size: int = 1, seed: int | None = None) -> Tensor:
        """Expected fall of the class entropy from seeing each missing patch, (N, rows, columns), nats."""
        generator = self.generator(seed)
        return self._ask(lambda tree, part: explain.information_gain(tree, part, draws, size, generator), x)

    def generator(self, seed: int | None) -> torch.Generator | None:
        """A generator on the model's device; None, which means torch's own, without a seed."""
        return None if seed is None else torch.Generator(self.device).manual_seed(seed)

    def _ask(self, query: Callable[..., T], x: Data, *classes: Data) -> T:
        tree = self.tree
        blob = self.take(x)
        given = (None if y is None else self.classes(y, len(blob)) for y in classes)
        return self.batched(lambda *parts: query(tree, *parts), blob, *given)

    def classes(self, y: Data, count: int | None = None) -> Tensor:
        """Classes (N,) as whole numbers; y: numbers or names. DataError where there is no such class, or where they are
        not `count`.
        """
        texts = np.asarray(y).reshape(-1) if not isinstance(y, Tensor) else None
        if texts is not None and texts.dtype.kind in "UO":
            y = [self.class_number(str(text)) for text in texts]
        numbers = torch.as_tensor(y).reshape(-1)
        whole = numbers.nan_to_num(nan=-1).long()
        wrong = (whole < 0) | (whole >= self.tree.classes) | (whole != numbers)
        if bool(wrong.any()):
            number = numbers[wrong][0].item()
            raise DataError(f"no class {number:g}: the net has classes 0 to {self.tree.classes - 1}")
        if count is not None and len(whole) != count:
            raise DataError(f"takes a class for each of {count} examples, found {len(whole)}")
        return whole.to(self.device)
