"""What the recipes share: data in three parts, epochs, accuracy, a run under fixed masks."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from .. import datasets, models, trainer
from ..metrics import accuracy
from ..pruning import apply_masks
from ..trainer import OnStage, Plan, State

Images = np.ndarray[Any, Any]
Params = Sequence[Any]
CROSS_ENTROPY = {"operation": "loss.softmax_cross_entropy"}


def silent(line: str) -> None:
    """Report progress to nobody."""


@dataclass
class Progress:
    """Progress on standard error: every line on a terminal, else one every ten seconds."""

    last: float = field(default_factory=time.monotonic)

    def __call__(self, line: str) -> None:
        """Show a line."""
        if sys.stderr.isatty():
            print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True)
        elif time.monotonic() - self.last > 10:
            self.last = time.monotonic()
            print(line, file=sys.stderr, flush=True)

    def done(self) -> None:
        """Leave the line clean."""
        if sys.stderr.isatty():
            print("\r\033[K", end="", file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Options:
    """What a user chooses: data, the first seed, how many seeds, how many epochs (None: as it is)."""

    data: str = "digits"
    seed: int = 0
    seeds: int | None = None
    epochs: int | None = None
    progress: Callable[[str], None] = silent

    def each(self, default: int) -> list[int]:
        """Return the seeds, ``default`` of them unless the user said otherwise."""
        count = default if self.seeds is None else self.seeds
        return list(range(self.seed, self.seed + count))


@dataclass(frozen=True)
class Part:
    """Examples: images (N, height, width, 1) and labels (N,)."""

    x: Images
    labels: Images


@dataclass(frozen=True)
class Data:
    """What is learnt from, what is chosen by, and what is looked at once, at the end."""

    train: Part
    validation: Part
    test: Part

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one image."""
        return tuple(self.train.x.shape[1:])


def load(name: str) -> Part:
    """Return all examples: ``digits``, or ``IMAGES,LABELS``, two IDX files."""
    if name == "digits":
        return Part(*datasets.digits())
    images, comma, labels = name.partition(",")
    if not comma:
        raise ValueError(f"--data must be digits or IMAGES,LABELS, got {name!r}")
    return Part(*datasets.idx(images, labels))


def parts(name: str, seed: int, validation: float = 0.1, test: float = 0.2) -> Data:
    """Return the examples in three parts, by a seeded shuffle.

    The test part is the same whatever ``validation`` is.
    """
    every = load(name)
    rest, last = datasets.split(len(every.labels), seed, test)
    inner, chosen = datasets.split(len(rest), seed + 1, validation / (1 - test))
    return Data(*(Part(every.x[i], every.labels[i]) for i in (rest[inner], rest[chosen], last)))


def batches(part: Part, size: int, epochs: int, seed: int) -> Iterator[list[tuple[Any, Any]]]:
    """Yield the steps of several epochs, each one micro-batch of shuffled examples."""
    for epoch in range(epochs):
        for rows in trainer.minibatches(len(part.labels), size, 1000 * seed + epoch):
            yield [(part.x[rows], part.labels[rows])]


def share_right(model: models.Model, params: Params, part: Part) -> float:
    """Return the accuracy of a model on examples."""
    right = 0.0
    for begin in range(0, len(part.labels), 512):
        labels = part.labels[begin : begin + 512]
        y, _ = models.forward(model, params, part.x[begin : begin + 512])
        right += float(accuracy(y, labels)) * len(labels)
    return right / len(part.labels)


def fit(
    model: models.Model,
    plan: Plan,
    state: State,
    part: Part,
    *,
    epochs: int,
    seed: int,
    batch_size: int = 32,
    on_stage: OnStage | None = None,
) -> State:
    """Train for some epochs with cross-entropy; masks of the state keep what they pruned at zero."""
    listen = {} if on_stage is None else {"on_stage": on_stage}
    steps = batches(part, batch_size, epochs, seed)
    # An optimiser that diverges is a result, not something to warn of.
    with np.errstate(all="ignore"):
        return trainer.train(model, CROSS_ENTROPY, plan, state, steps, **listen)


def pruned(plan: Plan, params: Params, masks: Sequence[Any]) -> State:
    """Return the state to fine-tune from: masked weights, an optimiser that starts anew."""
    kept = [p if m is None else apply_masks([p], [m], "select")[0] for p, m in
            zip(params, masks, strict=True)]  # fmt: skip
    return trainer.start(plan, kept, masks)


def weights_of(model: models.Model) -> list[int]:
    """Return the indices of the weights among the parameters, without the biases."""
    chosen, first = [], 0
    for layer in model:
        count = models.parameter_count(layer)
        chosen += list(range(first, first + max(count - 1, 0)))
        first += count
    return chosen


def spread(masks: Sequence[Any], chosen: Sequence[int], count: int) -> list[Any]:
    """Return one mask or None per parameter, from the masks of the chosen ones."""
    among = dict(zip(chosen, masks, strict=True))
    return [among.get(i) for i in range(count)]


def sparsity(masks: Sequence[Any]) -> float:
    """Return the share of the masked parameters' entries that are pruned."""
    there = [m for m in masks if m is not None]
    total = sum(m.size for m in there)
    return 1 - sum(int(np.count_nonzero(m)) for m in there) / total if total else 0.0


def unmasked(state: State) -> State:
    """Return a state whose masks are forgotten, as in a training loop that never had any."""
    return replace(state, masks=[None] * len(state.params))
