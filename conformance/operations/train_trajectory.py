"""``train.trajectory``: a whole training run of a small model on real data."""

from __future__ import annotations

from functools import cache, partial
from typing import Any

import numpy as np

from conformance import digits
from conformance.cases import Cases, Stream, fixed
from conformance.exact import Reject, ctx, full
from conformance.formats import FLOATS
from conformance.operation import Dial, Flag, Mistake, Operation, Param, Value, narrowest, widest
from conformance.operations import train_step
from conformance.oracle import training, trajectories

Settings = dict[str, Any]

DIALS = (
    *train_step.DIALS,
    Dial(
        "prune.gradient",
        "dense",
        "masked: the gradient of a pruned weight is zero, in the norm too (the mask is part of the model)",
        ("masked",),
    ),
)
_DEFAULTS = {dial.name: dial.default for dial in DIALS}
LAYERS = ("layer.dense", "layer.conv2d", "layer.relu", "layer.avg_pool2d", "layer.flatten")
LOSSES = ("loss.softmax_cross_entropy", "loss.mse")


def resolved(settings: Settings) -> Settings:
    """Return the settings with those of clip, penalty and optimiser filled in."""
    for layer in settings["model"]:
        if layer["operation"] not in LAYERS:
            raise Reject(f"a layer must be one of {', '.join(LAYERS)}")
    if settings["loss"]["operation"] not in LOSSES:
        raise Reject(f"loss must be one of {', '.join(LOSSES)}")
    optimizer = train_step.nested("optimizer", settings)
    if optimizer is None:
        raise Reject("optimizer is missing")
    return settings | {
        "clip": train_step.nested("clip", settings),
        "penalty": train_step.nested("penalty", settings),
        "optimizer": optimizer,
        "prune": _prune(settings),
    }


def _prune(settings: Settings) -> Settings | None:
    if settings["prune"] is None:
        return None
    return {"gradient": settings["prune.gradient"], **settings["prune"]}


def run(inputs: dict[str, Any], settings: Settings, mistake: str = "") -> dict[str, Any]:
    """Train exactly; each tensor's scale is what rounding may make of it."""
    chosen = resolved(settings)
    dtype = narrowest(inputs["params"])
    chosen["optimizer"]["dtype"] = dtype
    record = _exact_run(_Inputs(inputs, _mistaken(chosen, mistake)))
    # How far rounding carries depends little on the dials, and what the case allows not at all.
    plain = resolved(
        {n: v for n, v in settings.items() if "." not in n or n in _DEFAULTS} | _DEFAULTS
    )
    allowed = _deviations(_Inputs(inputs, plain), dtype)
    norms = widest(inputs["params"])
    outputs: dict[str, Any] = {
        "loss": _numbers(record.loss, norms, allowed.loss),
        "grads": [
            [_value(g, dtype, a) for g, a in zip(grads, bounds, strict=True)]
            for grads, bounds in zip(record.grads, allowed.grads, strict=True)
        ],
        "total_norm": _numbers(record.total_norm, norms, allowed.total_norm),
        "params": [
            [_value(p, dtype, a) for p, a in zip(params, bounds, strict=True)]
            for params, bounds in zip(record.params, allowed.params, strict=True)
        ],
    }
    if chosen["prune"] is not None:
        outputs["masks"] = record.masks
    return outputs


def _mistaken(settings: Settings, mistake: str) -> Settings:
    if mistake == "sum for mean":
        return settings | {"accumulate": "sum"}
    if mistake == "masks forgotten":
        return settings | {"prune": None}
    if mistake == "clip ignored":
        return settings | {"clip": None}
    if mistake == "momentum ignored":
        return settings | {"optimizer": settings["optimizer"] | {"momentum": 0.0}}
    if mistake == "linear schedule" and settings["prune"] is not None:
        prune = settings["prune"]
        return settings | {"prune": prune | {"schedule": prune["schedule"] | {"power": 1}}}
    return settings


class _Inputs:
    """Inputs and settings of a case, alike if they describe the same run."""

    def __init__(self, inputs: dict[str, Any], settings: Settings) -> None:
        self.inputs, self.settings = inputs, settings
        names = ("model", "loss", "optimizer", "accumulate", "prune", "clip", "penalty")
        self.key = repr([settings[name] for name in names]) + repr(
            [p.tobytes() for p in inputs["params"]]
        )

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Inputs) and self.key == other.key


@cache
def _exact_run(run_inputs: _Inputs) -> trajectories.Recorded:
    return trajectories.exact_run(run_inputs.inputs, run_inputs.settings)


@cache
def _deviations(run_inputs: _Inputs, dtype: str) -> trajectories.Deviation:
    u = FLOATS[dtype].unit_roundoff
    return trajectories.deviations(run_inputs.inputs, run_inputs.settings, u, seed=7)


def _value(exact: Any, dtype: str, deviation: float) -> Value:
    # 2^p times a bound is a scale of which one ULP is at least the bound.
    bound = trajectories.SAFETY * deviation * 2.0 ** FLOATS[dtype].precision
    return Value(exact, dtype, full((), ctx.mpf(bound)))


def _numbers(values: list[Any], dtype: str, deviations: list[float]) -> Value:
    exact, scale = full((len(values),)), full((len(values),))
    factor = trajectories.SAFETY * 2.0 ** FLOATS[dtype].precision
    for i, (value, deviation) in enumerate(zip(values, deviations, strict=True)):
        exact[i], scale[i] = value, ctx.mpf(factor * deviation)
    return Value(exact, dtype, scale)


STAGES = {
    "loss": (0, "loss"),
    "grads": (1, "backward"),
    "total_norm": (2, "clip"),
    "params": (3, "update"),
    "masks": (4, "mask"),
}
locate = training.locator(STAGES)

MLP = [
    {"operation": "layer.flatten"},
    {"operation": "layer.dense", "units": 12},
    {"operation": "layer.relu"},
    {"operation": "layer.dense", "units": 10},
]
CNN = [
    {"operation": "layer.conv2d", "filters": 2, "kernel": [3, 3]},
    {"operation": "layer.relu"},
    {"operation": "layer.conv2d", "filters": 4, "kernel": [3, 3]},
    {"operation": "layer.relu"},
    {"operation": "layer.avg_pool2d", "window": [2, 2]},
    {"operation": "layer.flatten"},
    {"operation": "layer.dense", "units": 12},
    {"operation": "layer.relu"},
    {"operation": "layer.dense", "units": 10},
]
SHAPES = {
    "mlp": [(64, 12), (12,), (12, 10), (10,)],
    "cnn": [(3, 3, 1, 2), (2,), (3, 3, 2, 4), (4,), (16, 12), (12,), (12, 10), (10,)],
}
CROSS_ENTROPY = {"operation": "loss.softmax_cross_entropy", "reduction": "mean"}
STEPS = 20


def initial(shapes: list[tuple[int, ...]], random: Stream) -> list[Any]:
    """Return He-uniform weights and small biases, which differ from each other."""
    params = []
    for shape in shapes:
        fan_in = int(np.prod(shape[:-1])) if len(shape) > 1 else 100
        bound = float(np.sqrt((6.0 if len(shape) > 1 else 1.0) / fan_in))
        params.append(random.uniform(*shape, low=-bound, high=bound))
    return params


def batches(random: Stream, micro: int, size: int) -> tuple[list[Any], list[Any]]:
    """Return, for each step, its micro-batches of digits and of labels."""
    images, labels = digits.load()
    order = random.permutation(len(labels))
    x, targets = [], []
    for step in range(STEPS):
        parts = [
            order[(step * micro + m) * size : (step * micro + m + 1) * size] for m in range(micro)
        ]
        x.append([images[rows] for rows in parts])
        targets.append([fixed(labels[rows], "int64") for rows in parts])
    return x, targets


def cases(c: Cases) -> None:
    """Write the cases. Their seeds are those for which no run comes near a kink."""

    def add(name: str, flags: str, labels: str, shapes: str, seed: int, micro: int = 1,
            size: int = 8, dtypes: Any = ("float32",), **params: Any) -> None:  # fmt: skip
        random = Stream(seed)
        x, targets = batches(random, micro, size)
        inputs = {"params": initial(SHAPES[shapes], random), "x": x, "targets": targets}
        c.add(name, flags, labels, inputs, {"loss": CROSS_ENTROPY, **params}, dtypes)

    add("mlp-adam", "mlp accumulation", "C1 C2", "mlp", SEEDS["mlp-adam"], 2, 4,
        ("float64", "float32"), model=MLP, accumulate="mean",
        optimizer={"operation": "optim.adam", "lr": 0.001})  # fmt: skip
    add("cnn-clip-momentum", "cnn momentum clip", "C1 C3", "cnn", SEEDS["cnn-clip-momentum"], model=CNN,
        clip={"operation": "clip.global_norm", "max_norm": 0.5, "ord": 2},
        optimizer={"operation": "optim.sgd", "lr": 0.01, "momentum": 0.9})  # fmt: skip
    schedule = {"operation": "schedule.polynomial", "begin": 2, "end": 17, "initial": 0.1,
                "final": 0.8, "power": 3, "frequency": 3}  # fmt: skip
    add("mlp-clip-prune-momentum", "mlp pruning momentum clip", "C1 C3 C4", "mlp",
        SEEDS["mlp-clip-prune-momentum"], dtypes=("float64", "float32"), model=MLP,
        clip={"operation": "clip.global_norm", "max_norm": 1.0, "ord": 2},
        optimizer={"operation": "optim.sgd", "lr": 0.05, "momentum": 0.9},
        prune={"score": "score.magnitude", "scope": "global", "schedule": schedule,
               "parameters": [0, 2]})  # fmt: skip


SEEDS = {"mlp-adam": 1, "cnn-clip-momentum": 1, "mlp-clip-prune-momentum": 1}

OPERATION = Operation(
    id="train.trajectory",
    summary="A whole training run of a small model on real data, compared step by step.",
    formula="for every step: forward → loss → backward → accumulate → clip → update → new masks → mask",
    sources=(
        "The articles' small CNN at reduced width; digits of the UCI repository as scikit-learn ships them",
        "M. Zhu, S. Gupta: To prune, or not to prune. 2017 (gradual magnitude pruning)",
    ),
    constraints={
        "C1": "loss, grads, total_norm and params are those of each step, in the order of train.step; grads"
        " are accumulated and unclipped.",
        "C2": "The loss of a step is the mean (or sum) over its micro-batches, like the gradients.",
        "C3": "The gradients are clipped before the update, by the threshold of the plan.",
        "C4": "Where the schedule says so, after the update, the smallest magnitudes of the chosen"
        " parameters are pruned (half-even count of all of them; what is pruned stays pruned); masked"
        " weights and their momentum are zero.",
    },
    inputs={
        "params": "weight and bias of each layer that has them, in order",
        "x": "a list of steps, each a list of micro-batches (N, 8, 8, 1)",
        "targets": "the same lists of class indices (N,) as int64",
    },
    outputs={
        "loss": "one number per step (a 1-d tensor)",
        "grads": "a list of steps, each the list of accumulated gradients before clipping",
        "total_norm": "one number per step: the norm before clipping",
        "params": "a list of steps, each the list of parameters after that step",
        "masks": "with prune: a list of steps, each with one boolean tensor per parameter (null: none)",
    },
    params=(
        Param("model", "list of layers, each with its operation id and parameters", required=True),
        Param("loss", "a loss's parameters and its operation id", required=True),
        Param("optimizer", "an optimiser's parameters and its operation id", required=True),
        Param("clip", "a clip's parameters and its operation id, or null"),
        Param("penalty", "a penalty's parameters and its operation id, or null"),
        Param("prune", "score, schedule, scope and indices of the parameters to prune, or null"),
        Param("accumulate", "mean or sum over the micro-batches of a step", default="mean"),
    ),
    dials=DIALS,
    oracle=run,
    tolerance=lambda inputs, settings: {
        "loss": 1,
        "grads": 1,
        "total_norm": 1,
        "params": 1,
        "masks": 0,
    },
    tolerance_why=trajectories.TOLERANCE_WHY,
    flags={
        "mlp": Flag("BASIC", "64-12-10 with ReLU on the digits."),
        "cnn": Flag("BASIC", "Two convolutions, average pool, two dense layers on the digits."),
        "accumulation": Flag("KNOWN_BUG", "Two micro-batches a step.", ("keras-team/keras#19990",)),
        "momentum": Flag("ORDER", "SGD with momentum."),
        "clip": Flag("ORDER", "Global-norm clip that binds in some steps."),
        "pruning": Flag(
            "KNOWN_BUG",
            "Gradual magnitude pruning: what is pruned stays zero under momentum.",
            ("he-y/filter-pruning-geometric-median#47", "tensorflow/model-optimization#973"),
        ),
    },
    cases=cases,
    mistakes=tuple(
        Mistake(name, description, partial(run, mistake=name), links)
        for name, description, links in (
            ("sum for mean", "micro-batches are added", ("dmlc/gluon-nlp#1394",)),
            ("masks forgotten", "nothing is pruned", ("tensorflow/model-optimization#631",)),
            ("clip ignored", "the clip has no effect", ("tensorflow/tensorflow#33929",)),
            ("momentum ignored", "the momentum has no effect", ("KellerJordan/Muon#4",)),
            (
                "linear schedule",
                "the power of the schedule is ignored",
                ("neuralmagic/sparseml#1283",),
            ),
        )
    ),
    dialects={
        "torch": {**train_step.OPERATION.dialects["torch"], "prune.gradient": "masked"},
        "tensorflow": train_step.OPERATION.dialects["tensorflow"],
    },
    locate=locate,
    attributed=False,
)
