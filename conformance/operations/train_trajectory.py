"""``train.trajectory``: a whole training run of a small model on real data."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

from conformance.exact import Reject, ctx, full
from conformance.formats import FLOATS
from conformance.operation import (
    Dial,
    Flag,
    Mistake,
    Operation,
    Param,
    Value,
    leaves,
    narrowest,
    widest,
)
from conformance.operations import train_step
from conformance.operations._train_trajectory_cases import cases
from conformance.oracle import models, perturbed, training, trajectories

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
LAYERS = tuple(models.LAYERS)
LOSSES = ("loss.softmax_cross_entropy", "loss.mse", "loss.binary_cross_entropy")


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
    return CHANGES[mistake](settings) if mistake else settings


def _optimizer(**changed: Any) -> Callable[[Settings], Settings]:
    return lambda s: s | {"optimizer": s["optimizer"] | changed}


def _layers(
    operation: str, change: Callable[[Settings], Settings]
) -> Callable[[Settings], Settings]:
    return lambda s: (
        s | {"model": [change(m) if m["operation"] == operation else m for m in s["model"]]}
    )


def _linear(settings: Settings) -> Settings:
    prune = settings["prune"]
    if prune is None:
        return settings
    return settings | {"prune": prune | {"schedule": prune["schedule"] | {"power": 1}}}


def _first_rate(settings: Settings) -> Settings:
    return _optimizer(lr=training.at(settings["optimizer"]["lr"], 0))(settings)


CHANGES: dict[str, Callable[[Settings], Settings]] = {
    "sum for mean": lambda s: s | {"accumulate": "sum"},
    "masks forgotten": lambda s: s | {"prune": None},
    "clip ignored": lambda s: s | {"clip": None},
    "momentum ignored": _optimizer(momentum=0.0, nesterov=False),
    "linear schedule": _linear,
    "penalty ignored": lambda s: s | {"penalty": None},
    "first rate kept": _first_rate,
    "nesterov ignored": _optimizer(nesterov=False),
    "amsgrad ignored": _optimizer(amsgrad=False),
    "centered ignored": _optimizer(centered=False),
    "decay ignored": _optimizer(weight_decay=0.0),
    "slope ignored": _layers("layer.leaky_relu", lambda m: m | {"slope": 0.0}),
    "dropout not scaled": _layers("layer.dropout", lambda m: m | {"rate": 0.0}),
    "average for maximum": _layers("layer.max_pool2d", lambda m: m | {"operation": "layer.avg_pool2d"}),
    "truncation ignored": _layers("layer.rnn", lambda m: m | {"truncate": None}),
    "epsilon of batch norm ignored": _layers("layer.batch_norm", lambda m: m | {"eps": 0.0}),
    "sum of the examples": lambda s: s | {"loss": s["loss"] | {"reduction": "sum"}},
}  # fmt: skip


class _Inputs:
    """Inputs and settings of a case, alike if they describe the same run."""

    def __init__(self, inputs: dict[str, Any], settings: Settings) -> None:
        self.inputs, self.settings = inputs, settings
        names = ("model", "loss", "optimizer", "accumulate", "prune", "clip", "penalty")
        tensors = [leaf.tobytes() for _, leaf in leaves(inputs) if leaf is not None]
        self.key = repr([settings[name] for name in names]) + repr(tensors)

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Inputs) and self.key == other.key


@cache
def _exact_run(run_inputs: _Inputs) -> trajectories.Recorded:
    return trajectories.exact_run(run_inputs.inputs, run_inputs.settings)


@cache
def _deviations(run_inputs: _Inputs, dtype: str) -> perturbed.Deviation:
    u = FLOATS[dtype].unit_roundoff
    return perturbed.deviations(run_inputs.inputs, run_inputs.settings, u, seed=7)


def _value(exact: Any, dtype: str, deviation: float) -> Value:
    # 2^p times a bound is a scale of which one ULP is at least the bound.
    bound = perturbed.SAFETY * deviation * 2.0 ** FLOATS[dtype].precision
    return Value(exact, dtype, full((), ctx.mpf(bound)))


def _numbers(values: list[Any], dtype: str, deviations: list[float]) -> Value:
    exact, scale = full((len(values),)), full((len(values),))
    factor = perturbed.SAFETY * 2.0 ** FLOATS[dtype].precision
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
        "C5": "Batch norm normalises by the mean and the biased variance of each micro-batch, through which"
        " its gradient passes.",
        "C6": "Dropout takes the masks that are given, and divides what they keep by 1 - rate.",
        "C7": "The gradient of a penalty joins the accumulated one: grads, total_norm and the clip see it.",
        "C8": "lr is one number, or one per step.",
    },
    inputs={
        "params": "weight and bias of each layer that has them, in order; of a recurrent layer weight,"
        " recurrent and bias, of batch norm scale and shift",
        "x": "a list of steps, each a list of micro-batches: images (N, H, W, C) or sequences (N, T, in)",
        "targets": "the same lists of class indices (N,) as int64, or of what the loss takes",
        "dropout": "optional: the same lists, each with one mask for each dropout layer; true keeps",
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
    tolerance_why=perturbed.TOLERANCE_WHY,
    flags={
        "mlp": Flag("BASIC", "Two dense layers with ReLU on the digits."),
        "cnn": Flag("BASIC", "Convolutions, average or max pool, dense layers on the digits."),
        "recurrent": Flag("BASIC", "The rows of a digit as a sequence, truncated or not."),
        "optimizers": Flag(
            "ORDER", "An optimiser with a state of its own: Adam, RMSprop, Adagrad, …"
        ),
        "layers": Flag("BASIC", "Leaky ReLU, sigmoid, tanh, batch norm, dropout."),
        "losses": Flag("BASIC", "Mean squared error and binary cross-entropy, as means and sums."),
        "batch-norm": Flag("ORDER", "Statistics are those of each micro-batch."),
        "dropout": Flag(
            "BASIC", "The masks are given, so that every implementation drops the same."
        ),
        "penalty": Flag("ORDER", "A penalty, whose gradient is clipped with the loss's."),
        "accumulation": Flag("KNOWN_BUG", "Two micro-batches a step.", ("keras-team/keras#19990",)),
        "momentum": Flag("ORDER", "SGD with momentum, classical or Nesterov's."),
        "clip": Flag(
            "ORDER", "A clip that binds in some steps: by global norm, own norm or value."
        ),
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
            ("penalty ignored", "the penalty has no effect", ()),
            ("first rate kept", "the learning rate of the first step stays", ()),
            ("nesterov ignored", "the momentum does not look ahead", ()),
            ("amsgrad ignored", "the largest second moment is not kept", ()),
            ("centered ignored", "the squared mean is not taken off", ()),
            ("decay ignored", "the weight decay has no effect", ()),
            ("slope ignored", "leaky ReLU does not leak", ()),
            ("dropout not scaled", "what dropout keeps is not divided by 1 - rate", ()),
            ("average for maximum", "max pool takes the mean of its window", ()),
            ("truncation ignored", "the gradient passes through all steps of the sequence", ()),
            ("epsilon of batch norm ignored", "it is divided by the bare deviation", ()),
            ("sum of the examples", "the loss is a sum where a mean is asked for", ()),
        )
    ),
    dialects={
        "torch": {**train_step.OPERATION.dialects["torch"], "prune.gradient": "masked"},
        "tensorflow": train_step.OPERATION.dialects["tensorflow"],
    },
    locate=locate,
    attributed=False,
)
