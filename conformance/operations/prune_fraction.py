"""``prune.fraction``: prune the weights of the lowest scores, a fraction of them or a count."""

from __future__ import annotations

from typing import Any

import numpy as np

from conformance.cases import Case
from conformance.formats import Tensor
from conformance.operation import Flag, Mistake, Operation, Param, Setting, map_tensors
from conformance.operations._prune_fraction_cases import cases
from conformance.oracle import pruning

Settings = dict[str, Any]


def oracle(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """Prune the round(amount·n) lowest scores, of each tensor or of all; w ← w where kept, else +0."""
    return pruning.pruned(inputs, pruning.fraction_masks(inputs, settings), settings)


def tolerance(inputs: dict[str, Any], settings: Settings) -> dict[str, int]:
    """Return 0: weights are chosen, not computed."""
    return {"masks": 0, "weights": 0}


def representative(case: Case, setting: Setting, outputs: dict[str, Any]) -> dict[str, Any]:
    """Under ties=unspecified, return the canonical choice if the given one only exchanges equals."""
    if setting.get("ties") != "unspecified":
        return outputs
    defaults = {p.name: p.default for p in PARAMS} | {d.name: d.default for d in DIALS}
    return pruning.stand_in(case.inputs, {**defaults, **case.params, **setting}, outputs)


def _with(**changes: Any) -> Any:
    """Return a mistake that sets parameters or dials to something else."""

    def mistake(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
        oracle(inputs, settings)
        return oracle(inputs, settings | changes)

    return mistake


def _shifted(by: int) -> Any:
    """Return a mistake that prunes some more or fewer of each group."""

    def mistake(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
        masks = pruning.fraction_masks(inputs, settings)
        for group in pruning.groups(inputs, settings):
            left = len(group.entries)
            wrong = min(max(pruning.how_many(group, settings) + by, 0), left)
            gone = {(e.tensor, e.index) for e in pruning.chosen(group, wrong, settings)}
            for e in group.entries:
                masks[e.tensor].ravel()[e.index] = (e.tensor, e.index) not in gone
        return pruning.pruned(inputs, masks, settings)

    return mistake


def _scored(change: Any) -> Any:
    """Return a mistake that ranks by something else than the scores."""

    def mistake(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
        oracle(inputs, settings)
        scores = [
            None if w is None or s is None else np.asarray(change(w, s))
            for w, s in zip(inputs["weights"], inputs["scores"], strict=True)
        ]
        return oracle(inputs | {"scores": scores}, settings | {"nan_score": "highest"})

    return mistake


def _magnitude(w: Tensor, s: Tensor) -> Tensor:
    return np.abs(w).astype(s.dtype)


def inverted(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """The mask is True where a weight is pruned; the weights are right."""
    result = oracle(inputs, settings)
    return result | {"masks": map_tensors(np.logical_not, result["masks"])}


def unmasked(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """The masks are right, and the weights come back whole."""
    return oracle(inputs, settings) | {"weights": inputs["weights"]}


def kept_fraction(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """The amount is taken as what is kept."""
    oracle(inputs, settings)
    if settings["amount"] is None:
        return oracle(inputs, settings)
    return oracle(inputs, settings | {"amount": 1.0 - float(settings["amount"])})


def whole_amount_counts(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """An amount of 1 prunes one weight, not all."""
    oracle(inputs, settings)
    if settings["amount"] != 1:
        return oracle(inputs, settings)
    return oracle(inputs, settings | {"amount": None, "count": 1})


def revived(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """``previous`` is ignored: pruned weights compete again and may come back."""
    oracle(inputs, settings)
    return oracle({**inputs, "previous": None}, settings)


def compete_again(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """Pruned weights stay pruned but compete, so places are given to them."""
    oracle(inputs, settings)
    fresh = pruning.fraction_masks(
        {**inputs, "previous": None}, settings | {"nan_score": "highest"}
    )
    masks = [
        None if m is None else m & live
        for m, live in zip(fresh, pruning.before(inputs), strict=True)
    ]
    return pruning.pruned(inputs, masks, settings)


def strictly_above(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """A weight is kept if its score is above the mean of its group's: the amount is ignored."""
    masks = pruning.fraction_masks(inputs, settings)
    for group in pruning.groups(inputs, settings):
        ranks = [e.rank[1] for e in group.entries]
        for e in group.entries:
            masks[e.tensor].ravel()[e.index] = e.rank[1] * len(ranks) > sum(ranks)
    return pruning.pruned(inputs, masks, settings)


def promoted(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """A float32 mask makes the weights float32, whatever they were."""
    result = oracle(inputs, settings)
    return result | {
        "weights": map_tensors(
            lambda w: w.astype(np.float32) if w.dtype.itemsize < 4 else w, result["weights"]
        )
    }


def accepts_any_amount(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """An amount outside [0, 1] is clipped to it in silence."""
    amount = settings["amount"]
    if amount is None or float(amount) != float(amount):
        return oracle(inputs, settings)
    return oracle(inputs, settings | {"amount": min(max(float(amount), 0.0), 1.0)})


MISTAKES = (
    Mistake(
        "weights for scores",
        "signed weights are ranked, so large negative ones go first",
        _scored(lambda w, s: w.astype(s.dtype)),
        ("intel/neural-compressor#592",),
    ),
    Mistake("magnitudes for scores", "|w| is ranked whatever the scores are", _scored(_magnitude)),
    Mistake(
        "squares for scores",
        "s² is ranked, which loses the order where squares underflow",
        _scored(lambda w, s: s * s),
    ),
    Mistake("highest pruned", "the order is turned round", _scored(lambda w, s: -s)),
    Mistake("mask inverted", "1 means pruned", inverted),
    Mistake("weights not masked", "the weights come back whole", unmasked),
    Mistake("amount kept", "the amount is taken as the share that is kept", kept_fraction),
    Mistake("amount 1 is one weight", "an amount of 1 prunes one weight", whole_amount_counts),
    Mistake("one too few", "k - 1 are pruned: the threshold's own weight is kept", _shifted(-1)),
    Mistake("one too many", "k + 1 are pruned", _shifted(1)),
    Mistake("never shared", "global scope prunes each tensor by itself", _with(scope="tensor")),
    Mistake("always shared", "tensor scope ranks all tensors together", _with(scope="global")),
    Mistake("amount ignored", "a threshold at the mean score", strictly_above),
    Mistake(
        "pruned weights revived",
        "previous masks are ignored",
        revived,
        ("neuralmagic/sparseml#589",),
    ),
    Mistake("pruned weights compete", "previously pruned weights take places", compete_again),
    Mistake(
        "16-bit weights promoted",
        "the mask's dtype becomes the weights'",
        promoted,
        ("apple/coreai-optimization#1",),
    ),
    Mistake("any amount accepted", "an amount outside [0, 1] is clipped", accepts_any_amount),
)

CONSTRAINTS = {
    "C1": "Of n weights that compete, exactly k = round(amount·n) are pruned: those of the lowest scores.",
    "C2": "amount·n is computed in float64 and rounded to an integer, halves to even.",
    "C3": "Among equal scores the lowest index goes first; over tensors the order is (tensor, flat index).",
    "C4": "With scope tensor the amount holds for each tensor, with global for all weights together.",
    "C5": "amount is in [0, 1]; 0 prunes nothing, 1 everything, also when it is written as an integer.",
    "C6": "count is a number of weights, at most those that are there; exactly one of the two is given.",
    "C7": "A kept weight comes back bit for bit; a pruned one is +0, also if it was negative or not finite.",
    "C8": "What previous prunes stays pruned and does not compete; amounts are of what is left.",
    "C9": "A NaN score that competes is refused; infinite scores rank as they are; -0 equals +0.",
    "C10": "Masks are boolean and of the weight's shape; weights keep shape and dtype, 0-d and empty too.",
    "C11": "Absent weights, and weights without scores, take no part and are not counted.",
    "C12": "Lists of different lengths, or tensors of different shapes, are refused.",
    "C13": "Scores keep their sign, and those of different dtypes are compared as numbers.",
}

FLAGS = {
    "basic": Flag("BASIC", "Distinct scores, both signs."),
    "rounding": Flag(
        "DIALECT",
        "amount·n is not an integer, or is one only in decimals: libraries round the pruned or the kept"
        " count, up, down or to even.",
        ("neuralmagic/sparseml#589",),
    ),
    "ties": Flag(
        "KNOWN_BUG",
        "Equal scores at the boundary: a threshold on the value prunes all of them or none.",
        ("neuralmagic/sparseml#678",),
    ),
    "signs": Flag(
        "KNOWN_BUG", "Large negative weights, negative scores.", ("intel/neural-compressor#592",)
    ),
    "amount-edge": Flag("EDGE_CASE", "An amount or count of nothing or everything."),
    "one": Flag(
        "KNOWN_BUG",
        "An amount of 1, as an integer too, is everything; a count of 1 is one weight.",
        ("https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.prune.l1_unstructured.html",),
    ),
    "bad-amount": Flag("EDGE_CASE", "Amounts or counts that are refused."),
    "count": Flag("BASIC", "A count in place of an amount."),
    "global": Flag(
        "KNOWN_BUG",
        "All tensors share one amount; each weight counts once.",
        ("Lightning-AI/pytorch-lightning#13595",),
    ),
    "previous": Flag(
        "KNOWN_BUG",
        "Pruned before: the second round must not revive a weight.",
        ("neuralmagic/sparseml#589",),
    ),
    "masked-value": Flag("DIALECT", "What a pruned weight becomes if it was negative, NaN or infinite."),
    "nan-score": Flag("EDGE_CASE", "NaN among the scores."),
    "infinite": Flag("EDGE_CASE", "Infinite scores."),
    "extreme": Flag("OVERFLOW", "Scores whose squares overflow or underflow."),
    "scales": Flag("DIALECT", "Tensors of different scales under one amount."),
    "mixed-dtypes": Flag(
        "KNOWN_BUG", "Several dtypes in one list.", ("apple/coreai-optimization#1",)
    ),
    "shapes": Flag("EDGE_CASE", "0-d, empty and many-dimensional tensors."),
    "absent": Flag("EDGE_CASE", "Absent weights or scores, or none at all."),
    "mismatch": Flag("EDGE_CASE", "Lists or shapes that do not fit each other."),
    "many": Flag("PRECISION", "More than a hundred weights, where counts in float32 or int() go astray."),
}  # fmt: skip


PARAMS = (
    Param("amount", "the fraction to prune, in [0, 1]; 1 is everything"),
    Param("count", "the number of weights to prune, in place of amount"),
    Param("scope", "tensor: of each tensor by itself; global: of all weights together", default="tensor"),
)  # fmt: skip
DIALS = pruning.FRACTION_DIALS

OPERATION = Operation(
    id="prune.fraction",
    summary="Prune the weights of the lowest scores: a fraction of them, or a count.",
    formula="k = round(amount·n);  m = previous, less the k lowest scores it left;  w ← w where m, else +0",
    sources=(
        "S. Han, J. Pool, J. Tran, W. Dally: Learning both weights and connections for efficient neural"
        " networks. NeurIPS 2015",
        "T. Gale, E. Elsen, S. Hooker: The state of sparsity in deep neural networks. 2019",
    ),
    constraints=CONSTRAINTS,
    inputs={
        "weights": "list of float tensors of any shapes; null is an absent one",
        "scores": "a score per weight, of the same shapes; null leaves a tensor as it is",
        "previous": "optional: boolean masks of the same shapes, False where pruned already",
    },
    outputs={"masks": "boolean, True where kept", "weights": "the list, +0 where pruned"},
    params=PARAMS,
    dials=DIALS,
    oracle=oracle,
    tolerance=tolerance,
    tolerance_why="Weights are chosen, not computed, so the bits of masks and weights are asked for.",
    flags=FLAGS,
    cases=cases,
    mistakes=MISTAKES,
    representative=representative,
    dialects={
        "torch": {
            "ties": "unspecified",
            "nan_score": "highest",
            "score_sign": "ignored",
            "masking": "multiply",
        },
    },
)
