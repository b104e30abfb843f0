"""``prune.n_m``: of every m neighbours along an axis keep the n of the highest scores."""

from __future__ import annotations

from typing import Any

import numpy as np

from conformance.cases import Case
from conformance.formats import Tensor
from conformance.operation import Flag, Mistake, Operation, Param, Setting
from conformance.operations._prune_n_m_cases import cases
from conformance.oracle import pruning, structured_pruning
from conformance.oracle.structured_pruning import mask_of, neighbours, outputs_of

Settings = dict[str, Any]


def oracle(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """In each group of m neighbours, those that are not among the n highest scores go."""
    live = structured_pruning.alive(inputs)
    return outputs_of(inputs, mask_of(neighbours(inputs, settings), live, settings), settings)


def tolerance(inputs: dict[str, Any], settings: Settings) -> dict[str, int]:
    """Return 0: weights are chosen, not computed."""
    return {"mask": 0, "weights": 0}


def representative(case: Case, setting: Setting, outputs: dict[str, Any]) -> dict[str, Any]:
    """Under ties=unspecified, return the canonical choice if the given one only exchanges equals."""
    if setting.get("ties") != "unspecified":
        return outputs
    settings = {d.name: d.default for d in DIALS} | case.params | dict(setting)
    choices = neighbours(case.inputs, settings)
    return structured_pruning.stand_in(case.inputs, choices, settings, outputs)


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


def zeros_for_kept(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """n is the number of zeros in a group, not of kept weights."""
    oracle(inputs, settings)
    return oracle(inputs, settings | {"n": settings["m"] - settings["n"]})


def other_axis(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """Groups lie along another axis."""
    oracle(inputs, settings)
    axis = (settings["axis"] + 1) % inputs["weights"].ndim
    return oracle(inputs, settings | {"axis": axis, "remainder": "pad"})


def flattened(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """Groups are cut from the flat tensor: they cross from one row into the next."""
    oracle(inputs, settings)
    shape = inputs["weights"].shape
    flat = {name: None if t is None else t.reshape(-1) for name, t in inputs.items()}
    result = oracle(flat, settings | {"axis": 0, "remainder": "pad"})
    return {name: t.reshape(shape) for name, t in result.items()}


def strided(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """A group holds every (size/m)-th weight, not m neighbours."""
    result = oracle(inputs, settings)
    axis, m = settings["axis"] % inputs["weights"].ndim, settings["m"]
    size = inputs["weights"].shape[axis]
    if size % m:
        return result
    order = np.arange(size).reshape(m, size // m).T.ravel()
    back = np.argsort(order)
    moved = {name: None if t is None else np.take(t, order, axis) for name, t in inputs.items()}
    return {name: np.take(t, back, axis) for name, t in oracle(moved, settings).items()}


def ranked_together(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """The share (m-n)/m is pruned of the whole tensor, whatever the groups are."""
    result = oracle(inputs, settings)
    live = structured_pruning.alive(inputs)
    k = sum(choice.k for choice in neighbours(inputs, settings))
    entries = [e for c in neighbours(inputs, settings) for e in c.group.entries]
    places = {e.index: np.array([e.index]) for e in entries}
    everyone = structured_pruning.Choice(pruning.Group(entries, live.size), k, places)
    return result | outputs_of(inputs, mask_of([everyone], live, settings), settings)


def by_value(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """A threshold at the (m-n)-th lowest score prunes all its equals."""
    oracle(inputs, settings)
    return oracle(inputs, settings | {"ties": "prune_all"})


def _remainder(kept: bool) -> Any:
    """Return a mistake that takes an axis that m does not divide, and keeps or prunes the rest."""

    def mistake(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
        result = oracle(inputs, settings | {"remainder": "pad"})
        axis, m = settings["axis"] % inputs["weights"].ndim, settings["m"]
        size = inputs["weights"].shape[axis]
        mask = np.moveaxis(result["mask"].copy(), axis, 0)
        mask[size // m * m :] = kept
        mask = np.moveaxis(mask, 0, axis) & structured_pruning.alive(inputs)
        return outputs_of(inputs, mask, settings)

    return mistake


def revived(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """``previous`` is ignored: the pattern is chosen afresh in every step."""
    oracle(inputs, settings)
    return oracle(inputs | {"previous": None}, settings | {"nan_score": "highest"})


def pruned_further(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """m - n of the weights that ``previous`` left go, as if the pattern was not there yet."""
    oracle(inputs, settings)
    live = structured_pruning.alive(inputs)
    choices = [
        structured_pruning.Choice(
            c.group, min(settings["m"] - settings["n"], len(c.group.entries)), c.places
        )
        for c in neighbours(inputs, settings)
    ]
    return outputs_of(inputs, mask_of(choices, live, settings), settings)


def compete_again(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """Weights pruned before take places among the n that are kept, and come back pruned."""
    oracle(inputs, settings)
    fresh = oracle(inputs | {"previous": None}, settings | {"nan_score": "highest"})
    return outputs_of(inputs, fresh["mask"] & structured_pruning.alive(inputs), settings)


def inverted(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """The mask is True where a weight is pruned; the weights are right."""
    result = oracle(inputs, settings)
    return result | {"mask": ~result["mask"]}


def unmasked(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """The mask is right, and the weights come back whole."""
    return oracle(inputs, settings) | {"weights": inputs["weights"]}


MISTAKES = (
    Mistake("n zeros of m", "n weights are pruned, not kept", zeros_for_kept, ("pytorch/ao#4626",)),
    Mistake("other axis", "groups lie along another axis", other_axis, ("pytorch/pytorch#65295",)),
    Mistake("groups cross rows", "groups are cut from the flat tensor", flattened),
    Mistake("strided groups", "a group holds weights far apart", strided),
    Mistake("one ranking", "the share is pruned of the whole tensor", ranked_together),
    Mistake(
        "threshold in a group",
        "equal scores at the boundary all go, so a group keeps fewer than n",
        by_value,
        ("intel/neural-compressor#1224",),
    ),
    Mistake("remainder kept", "the weights that fill no group stay", _remainder(True)),
    Mistake("remainder pruned", "the weights that fill no group go", _remainder(False)),
    Mistake(
        "pattern chosen afresh",
        "the mask of the step before is ignored",
        revived,
        ("tensorflow/model-optimization#847",),
    ),
    Mistake("pattern applied twice", "m - n of what is left go", pruned_further),
    Mistake("pruned weights compete", "pruned weights take places of kept ones", compete_again),
    Mistake("weights for scores", "signed weights are ranked", _scored(lambda w, s: w.astype(s.dtype))),
    Mistake(
        "magnitudes for scores", "|w| is ranked", _scored(lambda w, s: np.abs(w).astype(s.dtype))
    ),
    Mistake("squares for scores", "s² is ranked", _scored(_square)),
    Mistake("highest pruned", "the n lowest scores stay", _scored(lambda w, s: -s)),
    Mistake("mask inverted", "1 means pruned", inverted),
    Mistake("weights not masked", "the weights come back whole", unmasked),
)  # fmt: skip

CONSTRAINTS = {
    "C1": "Along axis, weights 0 … m-1, m … 2m-1 and so on form groups, at each place of the other axes.",
    "C2": "Of each group exactly n are kept: those of the highest scores.",
    "C3": "Of equal scores the one of the lowest index along the axis goes first.",
    "C4": "m must divide the axis; there is no rule for what is left over that libraries share.",
    "C5": "n is the number of kept weights, from 0 to m; m is at least 1.",
    "C6": "What previous has pruned stays pruned and counts among the m - n that go: a tensor that has the"
    " pattern keeps it, whatever the scores have become.",
    "C7": "A NaN score that competes is refused; infinite scores rank as they are; -0 equals +0; scores keep"
    " their sign.",
    "C8": "The mask is boolean and of the weights' shape; kept weights come back bit for bit, others as +0.",
    "C9": "A negative axis counts from the end; an axis that is not there, and scores or masks of another"
    " shape, are refused.",
}

FLAGS = {
    "basic": Flag("BASIC", "Groups of different scores."),
    "patterns": Flag("BASIC", "1:4, 2:4, 4:8 and others: is n kept or zero?", ("pytorch/ao#4626",)),
    "axis": Flag(
        "KNOWN_BUG",
        "The axis along which groups lie, for matrices and kernels.",
        ("pytorch/ao#4626", "pytorch/pytorch#65295"),
    ),
    "ties": Flag(
        "KNOWN_BUG",
        "Equal scores: exactly n stay.",
        ("intel/neural-compressor#1224",),
    ),
    "remainder": Flag(
        "KNOWN_BUG",
        "An axis that m does not divide.",
        ("pytorch/ao#4626",),
    ),
    "previous": Flag(
        "KNOWN_BUG",
        "Pruned before: the pattern stays as it was chosen first.",
        ("tensorflow/model-optimization#847", "tensorflow/model-optimization#855"),
    ),
    "signs": Flag("EDGE_CASE", "Negative weights and negative scores."),
    "nonfinite": Flag("EDGE_CASE", "NaN or infinite scores."),
    "extreme": Flag("OVERFLOW", "Scores whose squares overflow or vanish."),
    "masked-value": Flag("DIALECT", "Pruned weights that are negative, NaN or infinite."),
    "numbers-edge": Flag("EDGE_CASE", "n = 0, n = m, m = 1."),
    "bad-argument": Flag("EDGE_CASE", "Numbers, an axis or shapes that are refused."),
    "shapes": Flag("EDGE_CASE", "One axis, empty axes, no axis."),
}

PARAMS = (
    Param("n", "how many of a group are kept", required=True),
    Param("m", "the size of a group", required=True),
    Param("axis", "the axis along which groups lie", required=True),
)
DIALS = structured_pruning.N_M_DIALS

OPERATION = Operation(
    id="prune.n_m",
    summary="Of every m neighbours along an axis keep the n of the highest scores.",
    formula="m_i = previous and (rank of s_i in its group of m >= m - n);  w ← w where m, else +0",
    sources=(
        "A. Mishra et al.: Accelerating sparse deep neural networks. 2021",
        "A. Zhou et al.: Learning N:M fine-grained structured sparse neural networks from scratch. ICLR 2021",
    ),
    constraints=CONSTRAINTS,
    inputs={
        "weights": "a float tensor with one axis or more",
        "scores": "a score per weight, of the same shape",
        "previous": "optional: a boolean mask of the same shape, False where pruned already",
    },
    outputs={"mask": "boolean, True where kept", "weights": "the tensor, +0 where pruned"},
    params=PARAMS,
    dials=DIALS,
    oracle=oracle,
    tolerance=tolerance,
    tolerance_why="Weights are chosen, not computed, so the bits of mask and weights are asked for.",
    flags=FLAGS,
    cases=cases,
    mistakes=MISTAKES,
    representative=representative,
    dialects={"torch": {"ties": "unspecified", "nan_score": "highest", "masking": "multiply"}},
)
