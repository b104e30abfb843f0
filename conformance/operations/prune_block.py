"""``prune.block``: prune whole blocks of weights, those of the lowest pooled scores."""

from __future__ import annotations

from typing import Any

import numpy as np

from conformance.cases import Case
from conformance.formats import Tensor
from conformance.operation import Flag, Mistake, Operation, Param, Setting
from conformance.operations._prune_block_cases import cases
from conformance.oracle import pruning, structured_pruning
from conformance.oracle.structured_pruning import Choice, blocks, mask_of, outputs_of

Settings = dict[str, Any]
JAXPRUNER = "https://github.com/google-research/jaxpruner/blob/main/jaxpruner/mask_calculator.py"


def oracle(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """A block's score is the mean or the largest of its scores; the round(amount·n) lowest go."""
    live = structured_pruning.alive(inputs)
    return outputs_of(inputs, mask_of(blocks(inputs, settings), live, settings), settings)


def tolerance(inputs: dict[str, Any], settings: Settings) -> dict[str, int]:
    """Return 0: weights are chosen, not computed."""
    return {"mask": 0, "weights": 0}


def representative(case: Case, setting: Setting, outputs: dict[str, Any]) -> dict[str, Any]:
    """Under ties=unspecified, return the canonical choice if the given one only exchanges equals."""
    if setting.get("ties") != "unspecified":
        return outputs
    defaults = {p.name: p.default for p in PARAMS} | {d.name: d.default for d in DIALS}
    settings = {**defaults, **case.params, **setting}
    choices = blocks(case.inputs, settings)
    return structured_pruning.stand_in(case.inputs, choices, settings, outputs)


def _with(**changes: Any) -> Any:
    """Return a mistake that sets parameters to something else."""

    def mistake(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
        oracle(inputs, settings)
        return oracle(inputs, settings | changes)

    return mistake


def _scored(change: Any) -> Any:
    """Return a mistake that ranks by something else than the scores."""

    def mistake(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
        oracle(inputs, settings)
        scores = np.asarray(change(inputs["weights"], inputs["scores"]))
        return oracle(inputs | {"scores": scores}, settings | {"nan_score": "highest"})

    return mistake


def _square(w: Tensor, s: Tensor) -> Tensor:
    with np.errstate(all="ignore"):
        return s * s


def _counted(change: Any) -> Any:
    """Return a mistake about how many blocks go: ``change(k, blocks left)``."""

    def mistake(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
        (choice,) = blocks(inputs, settings)
        left = len(choice.group.entries)
        wrong = Choice(choice.group, min(max(change(choice.k, left), 0), left), choice.places)
        return outputs_of(
            inputs, mask_of([wrong], structured_pruning.alive(inputs), settings), settings
        )

    return mistake


def _padded(inputs: dict[str, Any], block: Any, fill: float) -> dict[str, Any]:
    """Return inputs that whole blocks cover: places are added at the end of each axis."""
    widths = [
        (0, -length % size) for length, size in zip(inputs["weights"].shape, block, strict=True)
    ]
    grown = {
        name: np.pad(inputs[name].astype(np.float64), widths, constant_values=fill).astype(
            inputs[name].dtype
        )
        for name in ("weights", "scores")
    }
    if inputs.get("previous") is not None:
        grown["previous"] = np.pad(inputs["previous"], widths, constant_values=True)
    return grown


def padding_counted(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """Zeros are added to fill the last blocks, and the mean counts them."""
    oracle(inputs, settings)
    mask = oracle(_padded(inputs, settings["block"], 0.0), settings)["mask"]
    shown = mask[tuple(slice(0, length) for length in inputs["weights"].shape)]
    return outputs_of(inputs, shown & structured_pruning.alive(inputs), settings)


def padded_by_the_remainder(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """n mod b places are added, not b - n mod b: the mask is shorter than the tensor."""
    result = oracle(inputs, settings)
    shape = inputs["weights"].shape
    covered = [
        (length + length % size) // size * size
        for length, size in zip(shape, settings["block"], strict=True)
    ]
    return result | {"mask": result["mask"][tuple(slice(0, length) for length in covered)]}


def rest_left_alone(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """Weights beyond the last whole block are never pruned and do not compete."""
    result = oracle(inputs, settings)
    shape = inputs["weights"].shape
    whole = tuple(
        slice(0, length // size * size)
        for length, size in zip(shape, settings["block"], strict=True)
    )
    inner: dict[str, Any] = {name: None if t is None else t[whole] for name, t in inputs.items()}
    mask = structured_pruning.alive(inputs).copy()
    if inner["weights"].size:
        mask[whole] = oracle(inner, settings)["mask"]
    return result | outputs_of(inputs, mask, settings)


def transposed(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """The lengths of a block are taken in the other order."""
    oracle(inputs, settings)
    return oracle(inputs, settings | {"block": settings["block"][::-1]})


def revived(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """``previous`` is ignored: pruned blocks compete again and may come back."""
    oracle(inputs, settings)
    return oracle(inputs | {"previous": None}, settings | {"nan_score": "highest"})


def compete_again(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """Pruned blocks stay so, but take places of the new amount."""
    oracle(inputs, settings)
    fresh = oracle(inputs | {"previous": None}, settings | {"nan_score": "highest"})
    return outputs_of(inputs, fresh["mask"] & structured_pruning.alive(inputs), settings)


def pruned_scores_counted(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """The pool counts the scores of weights that ``previous`` has pruned."""
    oracle(inputs, settings)
    live = structured_pruning.alive(inputs)
    (partly,) = blocks(inputs, settings)
    (whole,) = blocks(inputs | {"previous": None}, settings | {"nan_score": "highest"})
    ranks = {e.index: e for e in whole.group.entries}
    entries = [ranks[e.index] for e in partly.group.entries]
    wrong = Choice(pruning.Group(entries, partly.group.size), partly.k, partly.places)
    return outputs_of(inputs, mask_of([wrong], live, settings), settings)


def single_weights(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """Single weights go, not blocks."""
    oracle(inputs, settings)
    return oracle(inputs, settings | {"block": [1] * inputs["weights"].ndim})


def inverted(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """The mask is True where a weight is pruned; the weights are right."""
    result = oracle(inputs, settings)
    return result | {"mask": ~result["mask"]}


def unmasked(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """The mask is right, and the weights come back whole."""
    return oracle(inputs, settings) | {"weights": inputs["weights"]}


MISTAKES = (
    Mistake(
        "padded by the remainder",
        "n mod b places are added, not b - n mod b, and the mask is too short",
        padded_by_the_remainder,
        (JAXPRUNER,),
    ),
    Mistake("padding counted", "zeros beyond the edge count in the mean", padding_counted),
    Mistake("rest left alone", "weights beyond the last whole block never go", rest_left_alone),
    Mistake("block transposed", "the lengths of a block are in the other order", transposed),
    Mistake("pool ignored", "blocks are always ranked by their mean", _with(pool="mean")),
    Mistake("always the maximum", "blocks are always ranked by their maximum", _with(pool="max")),
    Mistake("single weights", "the amount is of single weights", single_weights),
    Mistake("one too few", "k - 1 blocks go", _counted(lambda k, left: k - 1)),
    Mistake("one too many", "k + 1 blocks go", _counted(lambda k, left: k + 1)),
    Mistake("amount kept", "the amount is what stays", _counted(lambda k, left: left - k)),
    Mistake("blocks revived", "previous is ignored", revived),
    Mistake("pruned blocks compete", "blocks pruned before take places", compete_again),
    Mistake("pruned scores counted", "the pool counts what is pruned", pruned_scores_counted),
    Mistake("weights for scores", "signed weights are ranked", _scored(lambda w, s: w.astype(s.dtype))),
    Mistake("magnitudes for scores", "|w| is ranked", _scored(lambda w, s: np.abs(w).astype(s.dtype))),
    Mistake("squares for scores", "the mean of s² ranks a block", _scored(_square)),
    Mistake("highest pruned", "the order is turned round", _scored(lambda w, s: -s)),
    Mistake("mask inverted", "1 means pruned", inverted),
    Mistake("weights not masked", "the weights come back whole", unmasked),
)  # fmt: skip

CONSTRAINTS = {
    "C1": "Blocks have the lengths given, one per axis, and start at index 0; the last of an axis may be cut"
    " off.",
    "C2": "The score of a block is the mean or the maximum (pool) of its scores: of those that are there, not"
    " of any padding.",
    "C3": "Of n blocks exactly k = round(amount·n), halves to even, go: those of the lowest scores, whole;"
    " one that is cut off counts as one.",
    "C4": "Of blocks with equal scores the first in C order goes first.",
    "C5": "amount is in [0, 1].",
    "C6": "A block that previous has pruned whole does not compete; of one pruned in part only what is left"
    " counts in its score; amounts are of the blocks left.",
    "C7": "A NaN score in a block that competes is refused; infinite ones rank as their pool does.",
    "C8": "The mask is boolean and of the weights' shape; kept weights come back bit for bit, others as +0.",
    "C9": "A block needs a length >= 1 for each axis; other blocks, pools, and shapes are refused.",
    "C10": "The pool is right whenever it is representable: a sum that overflows does not matter.",
}  # fmt: skip

FLAGS = {
    "basic": Flag("BASIC", "Blocks of clearly different scores."),
    "pool": Flag("BASIC", "Blocks that mean and maximum rank differently."),
    "cut-off": Flag(
        "KNOWN_BUG",
        "A block that does not divide the axes: the mask has the shape of the weights all the same.",
        (JAXPRUNER,),
    ),
    "block-shapes": Flag("BASIC", "Blocks of one, two and four axes, and larger than the tensor."),
    "rounding": Flag("DIALECT", "amount·n is not an integer."),
    "ties": Flag("EDGE_CASE", "Blocks of equal scores."),
    "amount-edge": Flag("EDGE_CASE", "Nothing or everything."),
    "bad-argument": Flag("EDGE_CASE", "Amounts, blocks, pools or shapes that are refused."),
    "previous": Flag("EDGE_CASE", "Pruned before, by blocks or by single weights."),
    "nonfinite": Flag("EDGE_CASE", "NaN or infinite scores."),
    "extreme": Flag("OVERFLOW", "Sums or squares that overflow or vanish."),
    "signs": Flag("EDGE_CASE", "Negative weights and scores."),
    "masked-value": Flag("DIALECT", "Pruned weights that are negative, NaN or infinite."),
    "shapes": Flag("EDGE_CASE", "Empty tensors and one without axes."),
}

PARAMS = (
    Param("block", "the lengths of a block, one per axis", required=True),
    Param("amount", "the fraction of the blocks to prune, in [0, 1]", required=True),
    Param("pool", "mean or max of the scores of a block", default="mean"),
)
DIALS = structured_pruning.COUNTING

OPERATION = Operation(
    id="prune.block",
    summary="Prune whole blocks of weights: those of the lowest pooled scores.",
    formula="p_b = mean or max of the scores in block b;  the round(amount·n) lowest go;  w ← w where m,"
    " else +0",
    sources=("S. Narang, E. Undersander, G. Diamos: Block-sparse recurrent neural networks. 2017",),
    constraints=CONSTRAINTS,
    inputs={
        "weights": "a float tensor of any shape",
        "scores": "a score per weight, of the same shape",
        "previous": "optional: a boolean mask of the same shape, False where pruned already",
    },
    outputs={"mask": "boolean, True where kept", "weights": "the tensor, +0 where pruned"},
    params=PARAMS,
    dials=DIALS,
    oracle=oracle,
    tolerance=tolerance,
    tolerance_why="Weights are chosen, not computed, so the bits of mask and weights are asked for. Pools"
    " that are not equal differ by far more than the rounding of any sum.",
    flags=FLAGS,
    cases=cases,
    mistakes=MISTAKES,
    representative=representative,
    dialects={"torch": {"ties": "unspecified", "nan_score": "highest", "masking": "multiply"}},
)
