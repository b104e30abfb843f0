"""``prune.fraction``: prune the weights of the lowest scores, a fraction of them or a count."""

from __future__ import annotations

from typing import Any

import numpy as np

from conformance.cases import ALL, WIDE, Case, Cases, Stream, fixed, tensor
from conformance.formats import Tensor
from conformance.operation import Flag, Mistake, Operation, Param, Setting, map_tensors
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


def magnitudes(weights: Any) -> Any:
    """Return the magnitudes of float64 tensors."""
    return [None if w is None else np.asarray(np.abs(w)) for w in weights]


def flags_of(*masks: str) -> Any:
    """Return boolean masks from strings of 0 and 1; ``None`` from an empty one."""
    return [fixed([c == "1" for c in mask], "bool") if mask else None for mask in masks]


def ramp(random: Stream, count: int) -> Any:
    """Return ±1 … ±count in random order."""
    signs = np.where(random.uniform(count) < 0, -1.0, 1.0)
    return signs * (1.0 + np.array(random.permutation(count), dtype=np.float64))


def cases(c: Cases) -> None:
    """Write the cases."""
    random = Stream(44)

    def add(
        name: str,
        flags: str,
        labels: str,
        weights: Any,
        scores: Any = None,
        dtypes: Any = WIDE,
        previous: Any = None,
        **params: Any,
    ) -> None:
        scores = magnitudes(weights) if scores is None else scores
        inputs = {"weights": weights, "scores": scores}
        if previous is not None:
            inputs["previous"] = previous
        c.add(name, flags, labels, inputs, params, dtypes)

    # fmt: off
    two = [tensor([3, -1, 0.25], [-0.5, 2, -4]), tensor(-0.75, 0.625, 1, -8)]
    add("two-tensors", "basic signs", "C1 C4 C7 C10", two, dtypes=ALL, amount=0.5)
    add("two-tensors-global", "global basic", "C1 C4 C7", two, dtypes=ALL, amount=0.5, scope="global")
    spread = [random.spread(4, 5), random.spread(7), random.spread(2, 1, 3)]
    add("wide-range", "basic", "C1 C4", spread, dtypes=ALL, amount=0.4)
    add("wide-range-global", "global scales", "C1 C4", spread, dtypes=ALL, amount=0.4, scope="global")
    add("large-negative", "signs", "C1 C7", [tensor(-5, 1, 2)], dtypes=ALL, amount=1 / 3)

    # (n, amount): the pairs of which libraries make different counts
    pairs = ((3, 0.5), (5, 0.5), (7, 0.5), (9, 0.5), (1, 0.5), (2, 0.25), (2, 0.75), (5, 0.1), (7, 0.3),
        (10, 0.05), (10, 0.15), (10, 0.25), (10, 0.35), (10, 0.7), (5, 0.8), (10, 0.9), (4, 0.999))
    for n, amount in pairs:
        name = f"count-{n}-of-{str(amount).replace('.', '-')}"
        labels = "C1 C2" if n > 2 else "C2"
        add(name, "rounding", labels, [ramp(random, n)], amount=amount)
    for n, amount in ((100, 0.29), (100, 0.57), (100, 0.575), (100, 0.145), (100, 0.07)):
        name = f"count-{n}-of-{str(amount).replace('.', '-')}"
        add(name, "rounding many", "C1 C2", [ramp(random, n)], dtypes=("float32",), amount=amount)
    add("count-3-and-5-of-0-5", "rounding", "C2 C4", [ramp(random, 3), ramp(random, 5)], dtypes=ALL,
        amount=0.5)
    add("count-3-and-5-global", "rounding global", "C2 C4", [ramp(random, 3), -0.9 * ramp(random, 5)],
        amount=0.3125, scope="global")

    ones = [np.where(random.uniform(10) < 0, -1.0, 1.0)]
    add("all-equal-10", "ties", "C1 C3", ones, dtypes=ALL, amount=0.5)
    add("all-equal-4", "ties", "C1 C3", [tensor([1, -1], [1, -1])], amount=0.5)
    add("all-zero", "ties", "C1 C3", [tensor(0, -0.0, 0, -0.0)], amount=0.5, dtypes=ALL)
    add("ties-in-the-middle", "ties", "C3", [tensor(2, 1, -1, 1, 3)], amount=0.4, dtypes=ALL)
    add("ties-at-the-ends", "ties", "C3", [tensor(3, 1, -2, 1, 1)], amount=0.4)
    add("ties-by-sign", "ties signs", "C3", [tensor(1, -1, 1, -1, 2)], amount=0.4, dtypes=ALL)
    add("ties-not-split", "ties", "C1 C3", [tensor(5, 1, 7, -1, 9, 3)], amount=1 / 3)
    add("signed-zero-ties", "ties", "C3 C9", [tensor(3, -4, 5, 6)], [tensor(0, -0.0, 0, 1)], amount=0.5,
        dtypes=ALL)
    add("zeros-and-one", "ties", "C3 C9", [tensor(0, -0.0, 0, 1)], amount=0.5)
    add("three-zeros", "ties", "C3", [tensor([0, 0], [0, 1])], amount=0.25)
    matrix = [tensor([1, 2, 1], [2, 1, 1], [1, 3, 2])]
    add("ties-in-rows", "ties", "C3 C10", matrix, amount=0.35, dtypes=ALL)
    add("ties-over-tensors", "ties global", "C3 C4", [tensor(2, 1, 4), tensor([1, 8], [1, 1])], amount=0.43,
        scope="global", dtypes=ALL)
    add("all-equal-global", "ties global", "C3 C4", [tensor(1, -1, 1), tensor([-1, 1], [1, -1])],
        amount=0.5, scope="global")

    four = [tensor(4, -2, 3, -1), tensor([5, 0.5])]
    add("amount-0", "amount-edge", "C5 C7", four, amount=0.0, dtypes=ALL)
    add("amount-0-integer", "amount-edge", "C5", four, amount=0)
    add("amount-0-global", "amount-edge global", "C5", four, amount=0.0, scope="global")
    add("amount-1", "amount-edge one", "C5 C7", four, amount=1.0, dtypes=ALL)
    add("amount-1-integer", "amount-edge one", "C5", four, amount=1, dtypes=ALL)
    add("amount-1-global", "amount-edge global one", "C5", four, amount=1.0, scope="global")
    add("amount-1-ties", "amount-edge ties one", "C5", ones, amount=1.0)
    add("amount-tiny", "amount-edge rounding", "C2", four, amount=1e-300)
    add("amount-just-below-1", "amount-edge rounding", "C2", four, amount=1 - 2.0**-53)
    add("amount-subnormal", "amount-edge rounding", "C2", [ramp(random, 3)], amount=5e-324)
    for name, value in (("negative", -0.1), ("above-1", 1.5), ("nan", "nan"), ("inf", "inf"), ("2", 2)):
        add(f"amount-{name}", "bad-amount", "C5", four, amount=value)
    add("minus-infinite-amount", "bad-amount", "C5", four, dtypes=("float32",), amount="-inf")
    add("bad-amount-no-tensors", "bad-amount absent", "C5", [], [], dtypes=("float32",), amount=1.5)

    add("count-2", "count", "C6 C4", [tensor(4, -2, 3, -1), tensor([5, 0.5, -7])], count=2, dtypes=ALL)
    add("count-3-global", "count global", "C6 C4", four, count=3, scope="global", dtypes=ALL)
    add("count-1", "count one", "C6", [tensor(4, -2, 3, -1)], count=1, dtypes=ALL)
    add("count-0", "count amount-edge", "C6", four, count=0)
    add("count-all", "count amount-edge", "C6", [tensor(4, -2, 3, -1)], count=4)
    add("count-all-global", "count amount-edge global", "C6", four, count=6, scope="global")
    add("count-ties", "count ties", "C3 C6", ones, count=3)
    add("count-too-many", "bad-amount count", "C6", [tensor(4, -2, 3, -1)], count=5)
    add("count-too-many-for-one", "bad-amount count", "C6", four, count=3)
    add("count-negative", "bad-amount count", "C6", four, count=-1)
    add("amount-and-count", "bad-amount count", "C6", four, count=1, amount=0.5)
    add("neither", "bad-amount", "C6", four)

    layer = [random.uniform(2, 32), random.uniform(2) * 0.1]
    add("linear-32-2", "global many", "C2 C4", layer, dtypes=("float32",), amount=0.2, scope="global")
    scales = [tensor(1, 2, 3, 4), tensor(0.1, -0.2, 0.3, -0.4)]
    add("other-scales", "global scales", "C4", scales, amount=0.5, scope="global", dtypes=ALL)
    add("other-scales-tensor", "scales", "C4", scales, amount=0.5, dtypes=ALL)
    long_short = [tensor(5, 6, 7, 8, 9, 10, 11), tensor(1, 2), np.array(0.5)]
    add("long-and-short", "global scales", "C4", long_short, amount=0.3, scope="global")
    zero_layer = [tensor(0, 0, 0), tensor(4, -2, 1, 3)]
    add("zero-layer", "global scales ties", "C4", zero_layer, amount=0.5, scope="global")

    pruned_six = [tensor(-7, 10, 3, -1, 9, 2, -8, 5, 4, 6)]
    add("previous-0-58", "previous rounding", "C8", pruned_six, amount=0.58,
        previous=flags_of("1100101001"), dtypes=ALL)
    add("previous-revived", "previous", "C8", [tensor(9, -1, 2, 8, -3)], amount=0.5,
        previous=flags_of("01111"), dtypes=ALL)
    add("previous-half-of-8", "previous", "C8", [ramp(random, 8)], amount=0.5,
        previous=flags_of("10110101"))
    add("previous-one-left", "previous rounding", "C8", [tensor(3, -2, 1)], amount=0.5,
        previous=flags_of("010"))
    add("previous-none-left", "previous amount-edge", "C8", [tensor(3, -2, 1)], amount=0.5,
        previous=flags_of("000"))
    add("previous-global", "previous global", "C4 C8", [tensor(9, -1, 2, 8), tensor(0.5, 7, -6, 4, 3)],
        amount=0.5, scope="global", previous=flags_of("0111", "10110"), dtypes=ALL)
    add("previous-some", "previous global", "C4 C8", [tensor(9, -1, 2, 8), tensor(0.5, 7, -6)], amount=0.5,
        scope="global", previous=flags_of("0101", ""))
    add("previous-count", "previous count", "C6 C8", [ramp(random, 8)], count=2,
        previous=flags_of("11011011"), dtypes=ALL)
    add("previous-count-too-many", "previous count bad-amount", "C6 C8", [ramp(random, 8)], count=4,
        previous=flags_of("10010010"))
    add("previous-ties", "previous ties", "C3 C8", ones, amount=0.5, previous=flags_of("0110111111"))
    add("previous-nan-score", "previous nan-score", "C8 C9", [tensor(4, np.nan, -3, 2)], [tensor(4, np.nan,
        3, 2)], amount=0.5, previous=flags_of("1011"), dtypes=ALL)
    add("previous-infinite", "previous infinite", "C8 C9", [tensor(4, -5, -3, 2)], [tensor(4, np.inf, 3,
        -np.inf)], amount=0.5, previous=flags_of("1010"))
    add("previous-everything-again", "previous amount-edge", "C5 C8", [tensor(4, -5, -3, 2)], amount=1.0,
        previous=flags_of("1010"))

    odd = [tensor(np.nan, -np.inf, np.inf, -3, -0.0, 2)]
    low = [tensor(1, 2, 3, 4, 9, 9.5)]
    add("non-finite-pruned", "masked-value", "C7", odd, low, amount=0.67, dtypes=ALL)
    high = [tensor(9, 8, 7, 1, 6, 2)]
    add("non-finite-kept", "masked-value", "C7", odd, high, amount=0.33, dtypes=ALL)
    add("negative-pruned", "masked-value signs", "C7", [tensor([-1, 2], [-3, 4])], amount=0.5, dtypes=ALL)
    add("nan-score", "nan-score", "C9", [tensor(9, 1, 2, -3)], [tensor(np.nan, 1, 2, 3)], amount=0.5,
        dtypes=ALL)
    add("nan-scores", "nan-score", "C9", [tensor(1, -2, 3, 4)], [tensor(1, np.nan, 2, np.nan)], amount=0.75)
    add("nan-score-nothing-pruned", "nan-score", "C9", [tensor(1, -2)], [tensor(1, np.nan)], amount=0.0)
    add("nan-weights-by-magnitude", "nan-score", "C9", [tensor(np.nan, 1, 2, 3)], amount=0.5)
    add("nan-score-global", "nan-score global", "C9", [tensor(1, -2), tensor(4, 5, 6)], [tensor(1, 2),
        tensor(np.nan, 5, 0.5)], amount=0.4, scope="global")
    add("infinite-scores", "infinite", "C9", [tensor(1, 2, -3, 4)], [tensor(np.inf, 1, -np.inf, 2)],
        amount=0.5, dtypes=ALL)
    add("infinite-weights", "infinite masked-value", "C7 C9", [tensor(np.inf, 1, -np.inf, 2)], amount=0.75)
    add("infinite-scores-global", "infinite global", "C9", [tensor(1, 2, -3), tensor(5, 4)], [tensor(np.inf,
        1, 3), tensor(2, 4)], amount=0.4, scope="global")
    add("squares-underflow", "extreme", "C1", [tensor(1e-25, -1e-30, 1, 2)], amount=0.25,
        dtypes=("float32",))
    add("squares-overflow", "extreme", "C1", [tensor(1e30, -1e25, 1e20, 2)], amount=0.75,
        dtypes=("float32",))
    add("squares-underflow", "extreme", "C1", [tensor(1e-160, -1e-170, 1, 2)], amount=0.25,
        dtypes=("float64",))
    add("subnormal-scores", "extreme", "C1", [tensor(1e-40, -3e-45, 1e-44, 2)], amount=0.5,
        dtypes=("float32",))
    add("neighbours", "extreme", "C1", [tensor(1 + 2.0**-23, -1, 1 + 2.0**-22)], amount=0.34,
        dtypes=("float32",))
    add("signed-scores", "signs", "C13", [tensor(5, -6, 0.1, -0.2, 7)], [tensor(-3, 2, 0.5, -1, -0.5)],
        amount=0.4, dtypes=ALL)
    add("signed-scores-9", "signs", "C13", [tensor(1, 2, 3, 4)], [tensor(-9, 3, 2, 1)], amount=0.5)
    add("scores-against-magnitude", "basic", "C1", [tensor([9, -8, 7], [0.1, 0.2, -0.3])], [tensor([0.125,
        0.5, 0.25], [2, 3, 1])], amount=0.5, dtypes=ALL)

    mixed = [fixed([-1, 2, 3.5], "float16"), fixed([[-4.0], [0.5]], "float64"), tensor(-7, 0.25)]
    mixed_scores = [fixed([1, 2, 3.5], "float32"), fixed([[4.0], [0.5]], "float64"), tensor(7, 0.25)]
    add("mixed", "mixed-dtypes masked-value", "C7 C10 C13", mixed, mixed_scores, ("float32", "bfloat16"),
        amount=0.5)
    add("mixed-global", "mixed-dtypes global", "C10 C13", mixed, mixed_scores, ("float32", "bfloat16"),
        amount=0.43, scope="global")
    close = [fixed([1.0, 3.0], "float32"), fixed([2.0, 5.0], "float32")]
    close_scores = [fixed([0.1, 3.0], "float32"), fixed([0.1, 5.0], "float64")]
    add("float32-tenth-against-float64", "mixed-dtypes global", "C13", close, close_scores, ("float32",),
        count=1, scope="global")
    shapes = [np.array(-0.5), random.uniform(2, 1, 3), np.zeros((0, 4)), random.uniform(2, 2)]
    add("shapes", "shapes", "C10", shapes, amount=0.6, dtypes=ALL)
    add("shapes-global", "shapes global", "C4 C10", shapes, amount=0.6, scope="global", dtypes=ALL)
    add("zero-dimensional", "shapes rounding", "C2 C10", [np.array(-0.5)], amount=0.5)
    add("zero-dimensional-all", "shapes amount-edge", "C5 C10", [np.array(-0.5)], amount=1.0)
    add("empty", "shapes", "C10", [np.zeros((2, 0))], amount=0.5)
    add("empty-count", "shapes count bad-amount", "C6 C10", [np.zeros((2, 0))], count=1)
    absent, absent_scores = [None, tensor(-1, 3, 2), None], [None, tensor(1, 3, 2), None]
    add("absent", "absent", "C11", absent, absent_scores, ALL, amount=0.34)
    add("absent-scores", "absent global", "C4 C11", [tensor(-1, 0.1), tensor(2, -4, 3), tensor([5.0])],
        [None, tensor(2, 4, 3), tensor([5.0])], amount=0.5, scope="global")
    add("absent-scores-previous", "absent previous", "C8 C11", [tensor(-1, 3), tensor(2, -4, 3)], [None,
        tensor(2, 4, 3)], amount=0.34, previous=flags_of("01", ""))
    add("no-tensors", "absent", "C11", [], [], ("float32",), amount=0.5)
    add("no-tensors-global", "absent global", "C11", [], [], ("float32",), amount=0.5, scope="global")
    add("all-absent-global", "absent global", "C11", [None], [None], ("float32",), amount=0.5,
        scope="global")
    add("other-length", "mismatch", "C12", [tensor(1, 2)], [], amount=0.5)
    add("other-shape", "mismatch", "C12", [tensor([1, 2])], [tensor([1], [2])], amount=0.5)
    add("broadcast-shape", "mismatch", "C12", [tensor([1, 2], [3, 4])], [tensor(1, 2)], amount=0.5)
    add("other-mask-shape", "mismatch previous", "C12", [tensor(1, 2, 3)], amount=0.5,
        previous=flags_of("10"))
    add("two-hundred", "many", "C1 C4", [random.uniform(9, 13), random.uniform(83)], amount=0.85,
        dtypes=ALL)
    # fmt: on


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
