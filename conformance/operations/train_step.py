"""``train.step``: the order of the stages of a training step, on given gradients."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from conformance.exact import Reject, each, full
from conformance.operation import Dial, Flag, Mistake, Operation, Param, Value, widest
from conformance.operations import load
from conformance.operations._train_step_cases import cases
from conformance.oracle import clipping, training
from conformance.oracle.optimizers import Tracked

Settings = dict[str, Any]

NESTED = {
    "clip": ("clip.value", "clip.norm", "clip.global_norm"),
    "penalty": tuple(training.PENALTIES),
    "optimizer": tuple(training.RULES),
}


def nested(name: str, settings: Settings) -> Settings | None:
    """Return all settings of an operation that a parameter describes, its dials included.

    A dial of the described operation is written with the parameter's name before it: ``clip.eps``.
    """
    description = settings[name]
    if description is None:
        return None
    if not isinstance(description, Mapping) or description.get("operation") not in NESTED[name]:
        raise Reject(f"{name} must name one of {', '.join(NESTED[name])}")
    operation = load(description["operation"])
    defaults = {param.name: param.default for param in operation.params}
    defaults |= {dial.name: dial.default for dial in operation.all_dials}
    # A dial at its default leaves each operation its own: AdamW's decay is not Adam's.
    dials = {
        dial.name.removeprefix(f"{name}."): settings[dial.name]
        for dial in DIALS
        if dial.name.startswith(f"{name}.") and settings[dial.name] != dial.default
    }
    uncorrected = dials.pop("uncorrected_eps_at", None)
    if name == "optimizer" and "bias_correction" not in defaults:
        dials["eps_at"] = uncorrected or defaults.get("eps_at")
    own = {key: value for key, value in dials.items() if key in defaults}
    return defaults | own | dict(description)


def run(inputs: dict[str, Any], settings: Settings, mistake: str = "") -> dict[str, Any]:
    """Take every step in the canonical order, or in one that a known mistake changes."""
    check(inputs, settings)
    clip, penalty = nested("clip", settings), nested("penalty", settings)
    optimizer = nested("optimizer", settings)
    if optimizer is None:
        raise Reject("optimizer is missing")
    optimizer["dtype"] = widest(inputs["params"])
    masks, order = inputs.get("masks"), training.order_of(clip)
    if mistake == "norm per tensor" and clip is not None and "max_norm" in clip:
        clip = clip | {"operation": "clip.norm"}
    params = [training.tracked(p) for p in inputs["params"]]
    slots: list[Settings] = [{"t": 0} for _ in params]
    outputs: list[Any] = []
    norms, skipped = [], []
    for step, micro in enumerate(inputs["grads"]):
        scale = training.at(settings["loss_scale"], step)
        lr = training.at(optimizer["lr"], step)
        how = settings["accumulate"]
        if mistake == "clip each micro-batch":
            micro = [_tensors(training.clip_all(_tracked(m), _scaled(clip, scale))) for m in micro]
        if mistake == "sum for mean":
            how = "sum"
        if mistake == "last micro-batch only":
            micro = micro[-1:]
        grads = training.accumulate(micro, how)
        if mistake == "clip before unscale":
            grads = training.clip_all(grads, clip)
        if mistake != "unscale forgotten":
            grads = training.unscale(grads, scale)
        if mistake == "unscaled twice":
            grads = training.unscale(grads, scale)
        if mistake != "penalty after the clip":
            grads = training.add_penalty(grads, params, penalty)
        total = training.norm(grads, order)
        finite = training.finite(grads) or mistake == "non-finite step taken"
        clipped = grads
        if finite and mistake not in ("clip before unscale", "clip each micro-batch"):
            clipped = training.clip_all(_decayed(grads, params, optimizer, mistake), clip)
        if mistake == "penalty after the clip":
            clipped = training.add_penalty(clipped, params, penalty)
        if mistake in ("masks on gradients only", "masks on gradients too"):
            clipped = [
                g if g is None else training.apply_masks([g], [m])[0]
                for g, m in zip(clipped, masks or [None] * len(clipped), strict=True)
            ]
        norms.append(training.norm(clipped, order) if mistake == "norm after clipping" else total)
        skipped.append(0 if finite else 1)
        if finite:
            chosen = optimizer | (
                {"weight_decay": 0.0} if mistake == "decay inside the clip" else {}
            )
            params, slots = training.update(params, clipped, slots, chosen, lr)
            if mistake not in ("masks on gradients only", "masks forgotten"):
                params = training.apply_masks(params, masks)
                slots = training.mask_slots(slots, masks)
        elif mistake == "skipped step counted":
            slots = [state | {"t": state["t"] + 1} for state in slots]
        touched = bool(outputs) and any(isinstance(v, Value) for v in outputs[-1])
        outputs.append(
            [
                _value(p, given) if finite or touched else given
                for p, given in zip(params, inputs["params"], strict=True)
            ]
        )
    return {
        "params": outputs,
        "total_norm": _norms(norms, inputs["params"]),
        "skipped": np.array(skipped, dtype=np.int32),
    }


def check(inputs: dict[str, Any], settings: Settings) -> None:
    """Refuse what no step can be made of."""
    if settings["accumulate"] not in ("mean", "sum"):
        raise Reject(f"accumulate must be mean or sum, got {settings['accumulate']!r}")
    scales = settings["loss_scale"]
    for scale in scales if isinstance(scales, list) else [scales]:
        if not 0 < float(scale) < np.inf:
            raise Reject(f"loss_scale must be a finite number > 0, got {scale}")
    if any(not micro for micro in inputs["grads"]):
        raise Reject("a step needs at least one micro-batch")


def _tracked(tensors: list[Any]) -> training.Grads:
    return [None if t is None else training.tracked(t) for t in tensors]


def _tensors(grads: training.Grads) -> list[Any]:
    return [None if g is None else g.exact for g in grads]


def _scaled(clip: Settings | None, scale: float) -> Settings | None:
    # Each micro-batch is clipped by a framework that has unscaled it: the threshold scales along.
    if clip is None or "max_norm" not in clip:
        return clip
    return clip | {"max_norm": float(clip["max_norm"]) * scale}


def _decayed(
    grads: training.Grads, params: list[Tracked], optimizer: Settings, mistake: str
) -> training.Grads:
    if mistake != "decay inside the clip":
        return grads
    decay = {"operation": "penalty.l2", "strength": optimizer["weight_decay"], "half": True}
    return training.add_penalty(grads, params, decay)


def _value(p: Tracked, like: Any) -> Value:
    return Value(p.exact, like.dtype.name, _finite(p.error))


def _norms(norms: list[Tracked], params: Any) -> Value:
    exact, errors = full((len(norms),)), full((len(norms),))
    for i, n in enumerate(norms):
        exact[i], errors[i] = n.exact.item(), n.error.item()
    return Value(exact, widest(params), _finite(errors))


def _finite(errors: Any) -> Any:
    return each(lambda e: e if e == e and abs(e) != np.inf else full(())[()], errors)


MISTAKES = tuple(
    Mistake(name, description, partial(run, mistake=name), links)
    for name, description, links in (
        (
            "clip before unscale",
            "the scaled gradient is clipped, so that max_norm is divided by the loss scale",
            ("Lightning-AI/pytorch-lightning#9330", "milesial/Pytorch-UNet#468"),
        ),
        (
            "clip each micro-batch",
            "the clip comes before the sum over micro-batches",
            ("huggingface/transformers#986", "facebookresearch/lingua#59"),
        ),
        (
            "norm per tensor",
            "the clip by the global norm takes each tensor's own norm",
            ("keras-team/keras#13575", "huggingface/transformers#614"),
        ),
        (
            "sum for mean",
            "micro-batches are added, so that the norm grows with their number",
            ("dmlc/gluon-nlp#1394",),
        ),
        ("last micro-batch only", "gradients are overwritten instead of accumulated", ()),
        (
            "unscale forgotten",
            "the optimiser sees the scaled gradient",
            ("deepspeedai/DeepSpeed#3790",),
        ),
        (
            "unscaled twice",
            "the gradient is divided by the loss scale twice",
            ("pytorch/pytorch#97415",),
        ),
        (
            "penalty after the clip",
            "the penalty's gradient escapes the clip",
            ("Eric-mingjie/network-slimming#19",),
        ),
        (
            "decay inside the clip",
            "coupled weight decay is added before the clip",
            ("apache/mxnet#9881",),
        ),
        (
            "masks on gradients only",
            "pruned weights keep their value, and momentum moves them",
            ("ruihangdu/PyTorch-Deep-Compression#2", "IntelLabs/distiller#63"),
        ),
        (
            "masks forgotten",
            "pruned weights are trained on",
            ("tensorflow/model-optimization#720",),
        ),
        (
            "non-finite step taken",
            "an overflowed gradient reaches the parameters",
            ("pytorch/pytorch#46849",),
        ),
        (
            "skipped step counted",
            "a skipped step advances the optimiser's step count",
            ("pytorch/pytorch#97415",),
        ),
        (
            "norm after clipping",
            "the norm is reported after the clip",
            ("hiyouga/LlamaFactory#3996",),
        ),
    )
)

CONSTRAINTS = {
    "C1": "Order: accumulate micro-batches, divide by the loss scale, add the penalty's gradient, check for"
    " finiteness, clip, update, mask weights and optimiser state.",
    "C2": "accumulate: the mean over the micro-batches of a step, or their sum; an absent gradient counts as"
    " zero unless it is absent in all of them.",
    "C3": "The clip sees the unscaled, accumulated gradient, the penalty's gradient included; weight decay"
    " belongs to the optimiser and is not clipped.",
    "C4": "total_norm is the norm of what the clip sees, before clipping, one per step, whatever the clip"
    " is: of the clip's ord for clip.global_norm, else the 2-norm.",
    "C5": "If any element of that gradient is NaN or infinite the step is skipped: parameters, optimiser"
    " state and step count stay as they are.",
    "C6": "After every step that is taken, masked weights are zero and so is their optimiser state; a mask"
    " does not change what the clip sees.",
    "C7": "loss_scale and lr are numbers, or lists with one number per step, skipped steps included.",
    "C8": "A parameter without a gradient in a step keeps its value and its optimiser state.",
    "C9": "A loss scale that is not a finite number > 0 is refused, and so is a step without micro-batches.",
}

FLAGS = {
    "plain": Flag("ORDER", "One micro-batch, no scale: clip and update."),
    "accumulation": Flag(
        "KNOWN_BUG",
        "Several micro-batches: the clip comes after they are combined.",
        ("huggingface/transformers#986", "facebookresearch/lingua#59", "keras-team/keras#19990"),
    ),
    "scaling": Flag(
        "KNOWN_BUG",
        "A loss scale: the clip comes after it is divided out.",
        (
            "Lightning-AI/pytorch-lightning#9330",
            "pytorch/examples#1196",
            "nntrainer/nntrainer#2746",
        ),
    ),
    "skip": Flag(
        "KNOWN_BUG",
        "A step whose gradient overflowed.",
        ("pytorch/pytorch#46849", "pytorch/pytorch#97415"),
    ),
    "decay": Flag(
        "KNOWN_BUG",
        "Weight decay and a clip: decay is not clipped.",
        ("apache/mxnet#9881", "tensorflow/addons#2737"),
    ),
    "penalty": Flag("KNOWN_BUG", "A penalty and a clip.", ("Eric-mingjie/network-slimming#19",)),
    "masks": Flag(
        "KNOWN_BUG",
        "Pruned weights stay zero, momentum or not.",
        ("he-y/filter-pruning-geometric-median#47", "jacobgil/pytorch-pruning#41"),
    ),
    "momentum": Flag("ORDER", "An optimiser with state over several steps."),
    "adaptive": Flag("ORDER", "Adam or AdamW, whose step count and moments show what was skipped."),
    "other-clip": Flag("ORDER", "The clip is by value, or by each tensor's norm."),
    "no-clip": Flag("ORDER", "No clip: the norm is reported all the same."),
    "absent": Flag("EDGE_CASE", "Absent gradients."),
    "schedule": Flag("ORDER", "A learning rate that changes from step to step."),
    "eps-visible": Flag(
        "DIALECT", "A threshold so small that an epsilon in the denominator shows."
    ),
    "grid": Flag(
        "ORDER", "Every combination of accumulation, scaling, clip, decay, momentum and mask."
    ),
    "refused": Flag("EDGE_CASE", "Parameters of which no step can be made."),
}


def _prefixed(name: str, dials: tuple[Dial, ...], chosen: str) -> tuple[Dial, ...]:
    return tuple(
        replace(
            d, name=f"{name}.{d.name}", context={f"{name}.{k}": v for k, v in d.context.items()}
        )
        for d in dials
        if d.name in chosen.split()
    )


DIALS = (
    *_prefixed("clip", clipping.DIALS, "eps_at eps negative_limit"),
    *_prefixed("optimizer", load("optim.sgd").dials, "momentum_form hyperparameters"),
    *_prefixed("optimizer", load("optim.adam").dials, "eps_at decay step_count"),
    replace(
        load("optim.rmsprop").dial("eps_at"),
        name="optimizer.uncorrected_eps_at",
        doc="eps_at of the optimisers without bias correction, RMSprop and Adagrad",
    ),
)

STAGES = {
    "total_norm": (0, "norm before the clip"),
    "skipped": (1, "finite check"),
    "params": (2, "update"),
}

OPERATION = Operation(
    id="train.step",
    summary="The order of the stages of a training step, on given gradients.",
    formula="g = (1/k) Σ micro-gradients / scale + ∇penalty;  w ← mask · update(w, clip(g)) if g is finite",
    sources=(
        "R. Pascanu, T. Mikolov, Y. Bengio: On the difficulty of training recurrent neural networks. ICML 2013",
        "P. Micikevicius et al.: Mixed precision training. ICLR 2018 (loss scale, skipped steps)",
    ),
    constraints=CONSTRAINTS,
    inputs={
        "params": "list of float tensors of one dtype",
        "grads": "a list of steps, each a list of micro-batches, each a list with one gradient per"
        " parameter (null: absent), already multiplied by the loss scale",
        "masks": "optional: one boolean tensor per parameter, or null; true keeps",
    },
    outputs={
        "params": "a list of steps, each the list of parameters after that step",
        "total_norm": "one number per step (a 1-d tensor): the norm before clipping",
        "skipped": "int32, one per step: 1 if the gradient was not finite and nothing changed",
    },
    params=(
        Param("optimizer", "an optimiser's parameters and its operation id", required=True),
        Param("clip", "a clip's parameters and its operation id, or null"),
        Param("penalty", "a penalty's parameters and its operation id, or null"),
        Param("accumulate", "mean or sum over the micro-batches of a step", default="mean"),
        Param(
            "loss_scale",
            "by which the gradients are multiplied: a number, or one per step",
            default=1.0,
        ),
    ),
    dials=DIALS,
    oracle=run,
    locate=training.locator(STAGES),
    tolerance=lambda inputs, settings: {"params": 2, "total_norm": 2, "skipped": 0},
    tolerance_why=training.TOLERANCE_WHY,
    flags=FLAGS,
    cases=cases,
    mistakes=MISTAKES,
    dialects={
        "torch": {
            "clip.eps_at": "denominator",
            "clip.eps": 1e-6,
            "clip.negative_limit": "flip_sign",
        },
        "tensorflow": {
            "clip.negative_limit": "ignore",
            "optimizer.momentum_form": "lr_inside",
            "optimizer.eps_at": "before_bias_correction",
            "optimizer.uncorrected_eps_at": "inside_root",
            "optimizer.decay": "decoupled_by_lr",
            "optimizer.hyperparameters": "float32",
            "optimizer.step_count": "optimizer",
        },
    },
)
