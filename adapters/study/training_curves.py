"""Whole runs with and without clipping: an MLP on the digits, and a recurrent network that explodes."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np

from adapters.study.excerpts import excerpt
from adapters.study.model import Choice, Control, Fill, Mark, Plot, Stage, Stop, Table, Topic
from adapters.study.numbers import rounded
from refimpl import clipping, datasets, models, schedules, trainer

SEED, BATCH = 0, 64
LOSS = {"operation": "loss.softmax_cross_entropy"}
MLP: list[dict[str, Any]] = [
    {"operation": "layer.flatten"},
    {"operation": "layer.dense", "units": 48},
    {"operation": "layer.relu"},
    {"operation": "layer.dense", "units": 10},
]
RNN: list[dict[str, Any]] = [
    {"operation": "layer.rnn", "units": 32},
    {"operation": "layer.flatten"},
    {"operation": "layer.dense", "units": 10},
]
GAIN = 2.0
"""By which the recurrent weights start larger than they should."""
EVERY = 10
"""Steps between two looks at the accuracy."""


@dataclass
class Curve:
    """What a listener wrote down of a run."""

    loss: list[float] = field(default_factory=list)
    norm: list[float] = field(default_factory=list)
    sparsity: list[float] = field(default_factory=list)
    accuracy: list[tuple[int, float]] = field(default_factory=list)

    def clipped(self, limit: float) -> int:
        """Return how many steps were clipped."""
        return sum(n > limit for n in self.norm)


@cache
def _data(recurrent: bool) -> tuple[Any, Any, Any, Any]:
    images, labels = datasets.digits()
    seen, held_out = datasets.split(len(labels), SEED)
    x = images.reshape(len(images), 8, 8) if recurrent else images
    return x[seen], labels[seen], x[held_out], labels[held_out]


@cache
def run(recurrent: bool, limit: float, sparsity: float = 0.0) -> Curve:
    """Train on the digits and return the curves; ``limit`` inf means no clip."""
    model, steps = (RNN, 150) if recurrent else (MLP, 200)
    x, labels, x_held, labels_held = _data(recurrent)
    params: list[Any] = list(models.initial_params(model, x.shape[1:], SEED))
    if recurrent:
        params[1] = (params[1] * GAIN).astype(np.float32)
    clip = {"operation": "clip.global_norm", "max_norm": limit} if limit < math.inf else None
    prune = None
    if sparsity:
        gradual = {
            "operation": "schedule.polynomial",
            "final": sparsity,
            "begin": 40,
            "end": 140,
            "frequency": 10,
        }
        prune = {
            "score": "score.magnitude",
            "scope": "global",
            "parameters": [0, 2],
            "schedule": gradual,
        }
    optimizer: dict[str, Any] = {"operation": "optim.sgd", "lr": 1.0 if recurrent else 0.5}
    if not recurrent:
        optimizer["momentum"] = 0.9
    plan = trainer.Plan(optimizer, clip=clip, prune=prune)
    curve = Curve()

    def listen(stage: str, step: int, values: dict[str, Any]) -> None:
        if stage == "loss":
            curve.loss.append(float(values["loss"]))
        elif stage == "penalty":
            curve.norm.append(float(values["total_norm"]))
        elif stage == "record":
            masks = [m for m in values["masks"] if m is not None]
            total = sum(m.size for m in masks)
            curve.sparsity.append(1 - sum(int(m.sum()) for m in masks) / total if total else 0.0)
            if step % EVERY == EVERY - 1 or step == 0:
                y, _ = models.forward(model, values["params"], x_held)
                curve.accuracy.append((step, float(np.mean(np.argmax(y, axis=1) == labels_held))))

    order: list[list[int]] = []
    for epoch in range(1 + steps * BATCH // len(labels)):
        order += trainer.minibatches(len(labels), BATCH, SEED + epoch)
    batches = ([(x[rows], labels[rows])] for rows in order[:steps])
    with np.errstate(all="ignore"):
        trainer.train(model, LOSS, plan, trainer.start(plan, params), batches, listen)
    return curve


def _line(name: str, values: list[float], colour: int) -> Mark:
    return Mark("line", name, tuple((i, v) for i, v in enumerate(values)), colour)


def _loss(recurrent: bool) -> Any:
    def fill(choice: Choice) -> Fill:
        limit = choice["limit"]
        plain, clipped = run(recurrent, math.inf), run(recurrent, limit)
        final = float(np.mean(plain.loss[-10:])), float(np.mean(clipped.loss[-10:]))
        says = (
            f"Mean loss of the last ten steps: {rounded(final[0])} without clipping, {rounded(final[1])} "
            f"with it."
        )
        if limit == math.inf:
            says = f"No clip: the two runs are one. Mean loss of the last ten steps: {rounded(final[0])}."
        return Fill(
            r"\bar L = «a» \quad \bar L_{\mathrm{clip}} = «b»",
            {"a": rounded(final[0]), "b": rounded(final[1])},
            says,
            (
                Plot("Loss", "step", "loss", (
                    _line("without clipping", plain.loss, 2), _line("with clipping", clipped.loss, 1))),
                _table(recurrent, limit),
            ),
        )  # fmt: skip

    return fill


def _table(recurrent: bool, limit: float) -> Table:
    rows = []
    for name, c in (
        ("without", math.inf),
        *((f"c = {value:g}", value) for value in LIMITS if value < math.inf),
    ):
        curve = run(recurrent, c)
        rows.append((name, rounded(curve.loss[0]), rounded(max(curve.loss)), rounded(curve.loss[-1]),
                     rounded(max(curve.norm)), f"{curve.clipped(c)} of {len(curve.norm)}",
                     f"{rounded(100 * curve.accuracy[-1][1])} %"))  # fmt: skip
    heads = (
        "clip",
        "first loss",
        "largest loss",
        "last loss",
        "largest norm",
        "steps clipped",
        "accuracy",
    )
    chosen = "without" if limit == math.inf else f"c = {limit:g}"
    return Table(
        "Every threshold", heads, tuple(rows), tuple("here" if r[0] == chosen else "" for r in rows)
    )


def _norm(recurrent: bool) -> Any:
    def fill(choice: Choice) -> Fill:
        limit = choice["limit"]
        plain, clipped = run(recurrent, math.inf), run(recurrent, limit)
        cut = tuple((i, n) for i, n in enumerate(clipped.norm) if n > limit)
        marks = [
            _line("norm without clipping", plain.norm, 2),
            _line("norm with clipping (before the clip)", clipped.norm, 1),
        ]
        if cut:
            marks.append(Mark("dots", "steps that were clipped", cut, 4))
        if limit < math.inf:
            marks.append(Mark("across", "threshold", ((limit,),), 0))
        worst = max(clipped.norm)
        k = 1.0 if worst <= limit else limit / worst
        return Fill(
            r"k_{\mathrm{least}} = \min\left(1, \frac{«c»}{«n»}\right) = «k»",
            {
                "c": "∞" if limit == math.inf else rounded(limit),
                "n": rounded(worst),
                "k": rounded(k),
            },
            f"{len(cut)} of {len(clipped.norm)} steps were clipped. Without clipping the norm reaches "
            f"{rounded(max(plain.norm))}.",
            (
                Plot(
                    "Total norm of the gradient (logarithmic)",
                    "step",
                    "norm",
                    tuple(marks),
                    log=True,
                ),
            ),
        )

    return fill


def _accuracy(recurrent: bool) -> Any:
    def fill(choice: Choice) -> Fill:
        limit = choice["limit"]
        plain, clipped = run(recurrent, math.inf), run(recurrent, limit)
        a, b = plain.accuracy[-1][1], clipped.accuracy[-1][1]
        return Fill(
            r"a = «a» \quad a_{\mathrm{clip}} = «b»",
            {"a": rounded(a), "b": rounded(b)},
            f"On digits that were held out: {rounded(100 * a)} % right without clipping, {rounded(100 * b)} "
                f"% with it."
            " One seed: a run is an example and no proof.",
            (Plot("Accuracy on held-out digits", "step", "accuracy", (
                Mark("line", "without clipping", tuple(plain.accuracy), 2),
                Mark("line", "with clipping", tuple(clipped.accuracy), 1))),),
        )  # fmt: skip

    return fill


def _pruned(choice: Choice) -> Fill:
    sparsity = choice["sparsity"]
    dense, sparse = run(False, 1.0), run(False, 1.0, sparsity)
    return Fill(
        r"s = «s» \quad a_{\mathrm{dense}} = «a» \quad a_{\mathrm{sparse}} = «b»",
        {"s": rounded(sparse.sparsity[-1]), "a": rounded(dense.accuracy[-1][1]),
            "b": rounded(sparse.accuracy[-1][1])},
        f"{rounded(100 * sparse.sparsity[-1])} % of the weights are zero at the end; pruned from step 40 to "
            f"140, by magnitude. Both runs clip at 1.",
        (
            Plot("Sparsity", "step", "sparsity", (_line("pruned", sparse.sparsity, 3), _line("dense",
                dense.sparsity, 0))),
            Plot("Accuracy on held-out digits", "step", "accuracy", (
                Mark("line", "dense", tuple(dense.accuracy), 0), Mark("line", "pruned",
                    tuple(sparse.accuracy), 3))),
            Plot("Loss", "step", "loss", (_line("dense", dense.loss, 0), _line("pruned", sparse.loss, 3))),
        ),
    )  # fmt: skip


LIMITS = (1.0, 0.25, 0.5, 2.0, 4.0, math.inf)


def _topic(recurrent: bool) -> Topic:
    name = "rnn" if recurrent else "training"
    what = (
        f"a recurrent layer of 32 units, its recurrent weights {GAIN:g} times too large"
        if recurrent
        else "an MLP with 48 hidden units"
    )
    source = f"refimpl's trainer on the embedded digits, {what}, seed {SEED}, batches of {BATCH}"
    listening = excerpt(trainer.train, "value, loss_gradient = loss(", "_, grads = backprop(")
    stages = [
        Stage("loss", "The loss", TEXTS[name][0], r"L = -\frac{1}{m} \sum_b \log p_b", (listening,), source,
              _loss(recurrent), ("limit",)),
        Stage("norm", "The norm, the threshold, and the steps that were clipped", TEXTS[name][1],
              r"n = \lVert g \rVert \quad \hat g = g \cdot \min\left(1, \frac{c}{n}\right)",
              (excerpt(trainer.train_step, "total_norm, clip =", 'on_stage("penalty"'),
               excerpt(clipping.measure_global_norm, "scale = clipper")), source,
                   _norm(recurrent), ("limit",)),
        Stage("accuracy", "What it buys", TEXTS[name][2], r"a = \frac{\text{right}}{\text{all}}",
              (excerpt(trainer.train, "state = train_step"),), source, _accuracy(recurrent), ("limit",)),
    ]  # fmt: skip
    controls = [
        Control(
            "limit",
            "threshold",
            tuple(Stop(c, "no clip" if c == math.inf else f"{c:g}") for c in LIMITS),
        )
    ]
    if not recurrent:
        stages.append(
            Stage("pruning", "Pruning while training", """The cubic schedule raises the sparsity,
            the trainer chooses new masks every ten steps, and the masks hold weights and optimiser
            state at zero.""",
                r"s_t = s_f + (s_i - s_f)(1 - p)^3",
                (excerpt(trainer._new_masks, "sparsity, updates", "score ="), excerpt(schedules.polynomial,
                    "curve = final")),
                source, _pruned, ("sparsity",))
        )  # fmt: skip
        controls.append(
            Control(
                "sparsity",
                "final sparsity",
                tuple(Stop(s, f"{100 * s:g} %") for s in (0.9, 0.5, 0.8, 0.95)),
            )
        )
    return Topic(name, TITLES[name], LEADS[name], tuple(stages), tuple(controls),
                 ("R. Pascanu, T. Mikolov, Y. Bengio: On the difficulty of training recurrent neural "
                     "networks. ICML 2013",))  # fmt: skip


TITLES = {"training": "Training curves", "rnn": "A recurrent network whose gradients explode"}
LEADS = {
    "training": """A small network learns to read 8 × 8 digits. The same run again with clipping:
            same weights at the start, same batches, same learning rate. Nothing explodes here, and
            clipping buys little; where it does, `secateurs study rnn` shows.""",
    "rnn": """A recurrent network reads the digits row by row. Going back through the rows, the
            gradient is multiplied by the recurrent weights again and again; where they are too
            large it grows with every row. Clipping is the cure that this problem was the reason
            for.""",
}
TEXTS = {
    "training": (
        "The loss at every step, a batch at a time: that is why it is ragged.",
        "The norm is the one before clipping. Where it is above the threshold the step is shortened to it.",
        "The loss is what training lowers; what counts is whether unseen digits are read.",
    ),
    "rnn": (
        """A network that knows nothing has a loss of about 2.3, the logarithm of 10. Without
            clipping the loss climbs far above that: the steps are so long that each lands somewhere
            worse.""",
        """The axis is logarithmic. Without clipping large norms lead to worse weights and these to
            larger norms. With clipping a large gradient still says where to go, but no longer how
            far.""",
        "Guessing reads one digit in ten.",
    ),
}


def training() -> Topic:
    """Return the page on the MLP."""
    return _topic(False)


def rnn() -> Topic:
    """Return the page on the recurrent network."""
    return _topic(True)
