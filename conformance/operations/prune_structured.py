"""``prune.structured``: prune whole slices along an axis, those of the smallest norms."""

from __future__ import annotations

from typing import Any

import numpy as np

from conformance.cases import Case
from conformance.operation import Flag, Mistake, Operation, Param, Setting
from conformance.operations._prune_structured_cases import cases
from conformance.oracle import pruning, structured_pruning
from conformance.oracle.structured_pruning import mask_of, outputs_of, slices

Settings = dict[str, Any]


def oracle(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """n_i = (Σ |w|^p)^(1/p) over slice i; the round(amount·n) slices of the smallest norms go."""
    live = structured_pruning.alive(inputs)
    return outputs_of(inputs, mask_of(slices(inputs, settings), live, settings), settings)


def tolerance(inputs: dict[str, Any], settings: Settings) -> dict[str, int]:
    """Return 0: weights are chosen, not computed."""
    return {"mask": 0, "weights": 0}


def representative(case: Case, setting: Setting, outputs: dict[str, Any]) -> dict[str, Any]:
    """Under ties=unspecified, return the canonical choice if the given one only exchanges equals."""
    if setting.get("ties") != "unspecified":
        return outputs
    defaults = {p.name: p.default for p in PARAMS} | {d.name: d.default for d in DIALS}
    settings = {**defaults, **case.params, **setting}
    choices = slices(case.inputs, settings)
    return structured_pruning.stand_in(case.inputs, choices, settings, outputs)


def _with(**changes: Any) -> Any:
    """Return a mistake that sets parameters or dials to something else."""

    def mistake(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
        oracle(inputs, settings)
        return oracle(inputs, settings | changes)

    return mistake


def other_axis(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """The slices lie along another axis, or the norms run over the one that is given."""
    result = oracle(inputs, settings)
    ndim = inputs["weights"].ndim
    if ndim < 2 or settings["count"] is not None:
        return result
    return oracle(inputs, settings | {"axis": (settings["axis"] + 1) % ndim})


def _counted(change: Any) -> Any:
    """Return a mistake about how many slices go: ``change(k, slices left)``."""

    def mistake(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
        (choice,) = slices(inputs, settings)
        left = len(choice.group.entries)
        k = min(max(change(choice.k, left), 0), left)
        wrong = structured_pruning.Choice(choice.group, k, choice.places)
        mask = mask_of([wrong], structured_pruning.alive(inputs), settings)
        return outputs_of(inputs, mask, settings)

    return mistake


def _kept_multiple_of_8(k: int, left: int) -> int:
    return left - (left - k) // 8 * 8


def _reversed(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    (choice,) = slices(inputs, settings)
    order = sorted(choice.group.entries, key=lambda e: e.rank)
    mask = structured_pruning.alive(inputs).ravel()
    mask = mask.copy()
    for entry in order[len(order) - choice.k :]:
        mask[choice.places[entry.index]] = False
    return outputs_of(inputs, mask.reshape(inputs["weights"].shape), settings)


def twice(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """The amount is applied twice, as to a layer that belongs to two groups."""
    first = oracle(inputs, settings)
    if settings["amount"] is None:
        return first
    return oracle(inputs | {"previous": first["mask"]}, settings)


def single_weights(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """The amount is of single weights, whatever slice they are in."""
    result = oracle(inputs, settings)
    if settings["amount"] is None:
        return result
    weights, previous = inputs["weights"], inputs.get("previous")
    alone = {"weights": [weights], "scores": [np.abs(weights)]}
    if previous is not None:
        alone["previous"] = [previous]
    free = {"normalise": "none", "score_sign": "kept", "scope": "tensor"}
    mask = pruning.fraction_masks(alone, settings | free | {"nan_score": "highest"})[0]
    return outputs_of(inputs, mask, settings)


def signed(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """Slices are ranked by the sum of their weights: opposite signs cancel."""
    result = oracle(inputs, settings)
    weights = inputs["weights"].astype(np.float64)
    if not np.all(np.isfinite(weights)) or weights.ndim < 2 or weights.size == 0:
        return result
    axis = settings["axis"] % weights.ndim
    sums = np.abs(weights.sum(axis=tuple(i for i in range(weights.ndim) if i != axis)))
    ranked = np.where(structured_pruning.alive(inputs), 1.0, 0.0) * np.expand_dims(
        sums, tuple(i for i in range(weights.ndim) if i != axis)
    )
    (choice,) = slices(inputs | {"weights": ranked}, settings | {"ord": "inf"})
    mask = mask_of([choice], structured_pruning.alive(inputs), settings)
    return outputs_of(inputs, mask, settings)


def revived(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """``previous`` is ignored: pruned slices compete again and may come back."""
    oracle(inputs, settings)
    return oracle(inputs | {"previous": None}, settings)


def compete_again(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """Slices that are pruned already stay so, but take places of the new amount."""
    oracle(inputs, settings)
    live = structured_pruning.alive(inputs)
    fresh = oracle(inputs | {"previous": None}, settings | {"nan_score": "highest"})
    return outputs_of(inputs, fresh["mask"] & live, settings)


def pruned_weights_counted(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """The norm of a slice counts the weights that ``previous`` has pruned."""
    oracle(inputs, settings)
    choices = slices(inputs, settings | {"nan_score": "highest"}, count_pruned=True)
    return outputs_of(
        inputs, mask_of(choices, structured_pruning.alive(inputs), settings), settings
    )


def inverted(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """The mask is True where a weight is pruned; the weights are right."""
    result = oracle(inputs, settings)
    return result | {"mask": ~result["mask"]}


def unmasked(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """The mask is right, and the weights come back whole."""
    return oracle(inputs, settings) | {"weights": inputs["weights"]}


def vector(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """The mask has one element per slice and not the shape of the weights."""
    result = oracle(inputs, settings)
    axis = settings["axis"] % inputs["weights"].ndim
    others = tuple(i for i in range(inputs["weights"].ndim) if i != axis)
    return result | {"mask": result["mask"].any(axis=others)}


MISTAKES = (
    Mistake("other axis", "the slices lie along another axis", other_axis),
    Mistake("ord ignored", "the norm is always the 2-norm", _with(ord=2)),
    Mistake("1-norm always", "the norm is always the 1-norm", _with(ord=1)),
    Mistake("largest pruned", "the slices of the largest norms go", _reversed),
    Mistake(
        "kept a multiple of 8",
        "the number of slices that stay is rounded down to a multiple of 8",
        _counted(_kept_multiple_of_8),
        ("openvinotoolkit/nncf#269", "openvinotoolkit/nncf#1011", "VainF/Torch-Pruning#49"),
    ),
    Mistake("one too few", "k - 1 slices go", _counted(lambda k, left: k - 1)),
    Mistake("one too many", "k + 1 slices go", _counted(lambda k, left: k + 1)),
    Mistake(
        "amount kept",
        "the amount is taken as the share that is kept",
        _counted(lambda k, left: left - k),
    ),
    Mistake(
        "amount applied twice",
        "a layer that belongs to two groups is pruned twice",
        twice,
        ("VainF/Torch-Pruning#3",),
    ),
    Mistake("single weights", "single weights go, not slices", single_weights),
    Mistake("signed sums", "weights of opposite signs cancel in the score", signed),
    Mistake("slices revived", "previous is ignored", revived),
    Mistake("pruned slices compete", "slices pruned before take places", compete_again),
    Mistake("pruned weights counted", "norms count what is pruned", pruned_weights_counted),
    Mistake("mask inverted", "1 means pruned", inverted),
    Mistake("weights not masked", "the weights come back whole", unmasked),
    Mistake("mask per slice", "the mask is not of the weights' shape", vector),
)

CONSTRAINTS = {
    "C1": "Slice i holds the weights whose index along axis is i; its norm runs over all other axes.",
    "C2": "Of n slices exactly k = round(amount·n), halves to even, go: those of the smallest norms, whole.",
    "C3": "The norm is (Σ|w|^p)^(1/p), for p = inf max|w|; p must be > 0. It is right whenever it is"
    " representable: squares that overflow or vanish do not matter.",
    "C4": "Of slices with equal norms the one of the lowest index goes first.",
    "C5": "amount is in [0, 1]; count is at most the number of slices that are left; exactly one is given.",
    "C6": "A slice that previous has pruned whole does not compete, and amounts are of the slices left.",
    "C7": "Of a slice that previous has pruned in part, only what is left counts in the norm.",
    "C8": "A negative axis counts from the end; an axis that is not there is refused, as is a 0-d tensor.",
    "C9": "A NaN norm of a slice that competes is refused; an infinite one ranks as it is.",
    "C10": "The mask is boolean and of the weights' shape; kept weights come back bit for bit, others as +0.",
    "C11": "A mask of another shape is refused.",
}

FLAGS = {
    "basic": Flag("BASIC", "Slices of clearly different norms."),
    "axes": Flag("BASIC", "Every axis of tensors with two to four, from the front and from the end."),
    "orders": Flag("BASIC", "Slices that the 1-norm, the 2-norm and the largest weight rank differently."),
    "rounding": Flag(
        "DIALECT",
        "amount·n is not an integer.",
        ("VainF/Torch-Pruning#42",),
    ),
    "round-to-8": Flag(
        "KNOWN_BUG",
        "The share of 64 filters that is kept is rounded to a multiple of 8.",
        ("openvinotoolkit/nncf#269", "VainF/Torch-Pruning#49"),
    ),
    "ties": Flag("EDGE_CASE", "Slices of equal norms at the boundary."),
    "amount-edge": Flag("EDGE_CASE", "Nothing or everything."),
    "bad-amount": Flag("EDGE_CASE", "Amounts and counts that are refused."),
    "bad-argument": Flag("EDGE_CASE", "An axis, an ord or a mask that does not fit."),
    "count": Flag("BASIC", "A count in place of an amount."),
    "previous": Flag(
        "KNOWN_BUG",
        "Pruned before, by slices or by single weights: amounts are of the slices that are left.",
        ("VainF/Torch-Pruning#3",),
    ),
    "masked-value": Flag("DIALECT", "Pruned weights that are negative, NaN or infinite."),
    "nonfinite": Flag("EDGE_CASE", "Infinite or NaN norms."),
    "extreme": Flag("OVERFLOW", "Squares overflow or vanish although the norms do not."),
    "shapes": Flag("EDGE_CASE", "One axis, axes of length 1 and 0."),
    "many": Flag("PRECISION", "Many slices."),
}  # fmt: skip

PARAMS = (
    Param("amount", "the fraction of the slices to prune, in [0, 1]"),
    Param("count", "the number of slices to prune, in place of amount"),
    Param("axis", "the axis whose indices number the slices", required=True),
    Param("ord", "p of the p-norm: a number > 0, or inf", default=2),
)
DIALS = structured_pruning.STRUCTURED_DIALS

OPERATION = Operation(
    id="prune.structured",
    summary="Prune whole slices along an axis: those of the smallest norms.",
    formula="n_i = (Σ|w|^p)^(1/p) over slice i;  the round(amount·n) smallest go;  w ← w where m, else +0",
    sources=(
        "H. Li, A. Kadav, I. Durdanovic, H. Samet, H. P. Graf: Pruning filters for efficient ConvNets."
        " ICLR 2017",
    ),
    constraints=CONSTRAINTS,
    inputs={
        "weights": "a float tensor with one axis or more",
        "previous": "optional: a boolean mask of its shape, False where pruned already",
    },
    outputs={"mask": "boolean, True where kept", "weights": "the tensor, +0 where pruned"},
    params=PARAMS,
    dials=DIALS,
    oracle=oracle,
    tolerance=tolerance,
    tolerance_why="Weights are chosen, not computed, so the bits of mask and weights are asked for. Norms"
    " that are not equal differ by far more than the rounding of any sum.",
    flags=FLAGS,
    cases=cases,
    mistakes=MISTAKES,
    representative=representative,
    dialects={
        "torch": {
            "ties": "unspecified",
            "nan_score": "highest",
            "masking": "multiply",
            "norm": "naive",
            "norm_dtype": "input_dtype",
        },
    },
)
