"""``score.wanda``: the magnitude of a weight times the norm of what comes in through it."""

from __future__ import annotations

from typing import Any

import numpy as np

from conformance.cases import ALL, Cases, Stream, fixed, tensor
from conformance.exact import Exact, Reject, divide, exact, full, real, total
from conformance.exact import sqrt as roots
from conformance.formats import FLOATS
from conformance.operation import Dial, Flag, Mistake, Operation, Value, leaves, narrowest
from conformance.oracle import scores

Settings = dict[str, Any]


def check(inputs: dict[str, Any]) -> None:
    """Refuse what is not a dense weight (in, out) with activations (samples, in)."""
    weights, activations = inputs["weights"], inputs["activations"]
    if len(weights) != len(activations):
        raise Reject("weights and activations must have the same length")
    for w, x in zip(weights, activations, strict=True):
        if w is None or x is None:
            continue
        if w.ndim != 2 or x.ndim != 2 or x.shape[1] != w.shape[0]:
            raise Reject("a weight must be (in, out) and its activations (samples, in)")


def energy(x: Exact) -> Exact:
    """Return Σ x² over the samples, for each input."""
    sums = np.empty(x.shape[1], dtype=object)
    sums[:] = [total(value * value for value in column) for column in x.T]
    return sums


def norms(x: Exact, settings: Settings) -> Exact:
    """Return the size of each input, as the dial has it."""
    squares = energy(x)
    if settings["activation_norm"] == "squared_norm":
        return squares
    if settings["activation_norm"] == "root_mean_square":
        squares = divide(squares, full(squares.shape, real(x.shape[0])))
    return roots(squares)


def ask(inputs: dict[str, Any], settings: Settings, score: Any) -> dict[str, Any]:
    """Return what ``score(w, x, settings)`` gives for each weight that has activations."""
    check(inputs)
    results: list[Any] = []
    for w, x in zip(inputs["weights"], inputs["activations"], strict=True):
        absent = w is None or x is None
        results.append(None if absent else Value(score(exact(w), exact(x), settings), w.dtype.name))
    return {"scores": results}


def score(w: Exact, x: Exact, settings: Settings) -> Exact:
    """s = |w_jk|·‖x_j‖."""
    return abs(w) * norms(x, settings)[:, None]


def oracle(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """s = |w_jk|·‖x_j‖, the norm of input j over all samples."""
    return ask(inputs, settings, score)


def tolerance(inputs: dict[str, Any], settings: Settings) -> dict[str, int]:
    """ULP allowed; the derivation is in TOLERANCE_WHY."""
    samples = max(
        (x.shape[0] for _, x in leaves(inputs["activations"]) if x is not None), default=0
    )
    narrow = FLOATS[narrowest(inputs)].precision < 24
    wide_too = any(
        w is not None and FLOATS[w.dtype.name].precision >= 24 for _, w in leaves(inputs["weights"])
    )
    return {"scores": 3 if narrow and not wide_too else samples + 7}


TOLERANCE_WHY = (
    "A norm over n samples: each x is divided by the largest, squared (the error of the quotient twice, and its"
    " own), added n - 1 times, perhaps divided by n; the root halves that: (n + 3)/2; the root and the scale"
    " round once more, and so does the product with |w|. The squared norm is not halved: n + 7 covers"
    " both. In 16 bits the norm is taken in float32 and rounded, and the product is: 3."
)


def _mistake(formula: Any) -> Any:
    return lambda inputs, settings: ask(inputs, settings, formula)


def _over_outputs(w: Exact, x: Exact, s: Settings) -> Exact:
    return abs(w) * norms(x, s).mean() if w.size else w


def _wrong_axis(w: Exact, x: Exact, s: Settings) -> Exact:
    sizes = norms(x, s)
    return abs(w) * sizes[None, :] if w.shape[0] == w.shape[1] else score(w, x, s)


def _sum_of_magnitudes(w: Exact, x: Exact, s: Settings) -> Exact:
    return abs(w) * abs(x).sum(axis=0)[:, None] if x.shape[0] else score(w, x, s)


def _last_sample(w: Exact, x: Exact, s: Settings) -> Exact:
    return abs(w) * abs(x[-1])[:, None] if x.shape[0] else score(w, x, s)


def _deviation(w: Exact, x: Exact, s: Settings) -> Exact:
    return score(w, x - x.sum(axis=0) / x.shape[0], s) if x.shape[0] else score(w, x, s)


MISTAKES = (
    Mistake("norm squared", "the root is forgotten, so that other inputs go first",
            _mistake(lambda w, x, s: abs(w) * energy(x)[:, None])),
    Mistake("weight only", "the activations are ignored",
            _mistake(lambda w, x, s: abs(w) + 0 * norms(x, s)[:, None])),
    Mistake("no absolute value", "negative weights rank lowest",
            _mistake(lambda w, x, s: w * norms(x, s)[:, None]), ("intel/neural-compressor#592",)),
    Mistake("one norm for the layer", "all inputs share one norm", _mistake(_over_outputs)),
    Mistake("norms along the outputs", "of a square weight the norms are laid along the wrong axis",
            _mistake(_wrong_axis)),
    Mistake("1-norm", "magnitudes are added, not squares", _mistake(_sum_of_magnitudes)),
    Mistake("last sample only", "a later sample overwrites the earlier ones", _mistake(_last_sample)),
    Mistake("deviation", "the mean activation is taken off first", _mistake(_deviation)),
)  # fmt: skip

CONSTRAINTS = {
    "C1": "The score of w[j, k] is |w[j, k]| times the 2-norm of x[:, j] over all samples.",
    "C2": "A score has the shape and dtype of its weight, empty ones included.",
    "C3": "Norms are taken in float32 or wider, and are right wherever they are representable.",
    "C4": "A weight without activations has no scores.",
    "C5": "NaN gives NaN in the scores of its input only; an infinite norm times a zero weight too.",
    "C6": "Weights that are not (in, out), or activations that are not (samples, in), are refused.",
    "C7": "The norm of no samples, or of zeros, is 0.",
}

FLAGS = {
    "observed": Flag("BASIC", "Weights and activations that several libraries were run on."),
    "basic": Flag("BASIC", "Several samples, inputs and outputs, all of different numbers."),
    "order": Flag("DIALECT", "The norm and its square rank the weights differently."),
    "samples": Flag("DIALECT", "One sample, several, or none: the mean is not the sum."),
    "square": Flag(
        "EDGE_CASE", "As many inputs as outputs: a wrong axis does not show in the shape."
    ),
    "zeros": Flag("EDGE_CASE", "Inputs that are always zero, zero weights."),
    "non-finite": Flag("EDGE_CASE", "NaN and infinities."),
    "extreme": Flag("OVERFLOW", "Activations whose squares overflow or vanish."),
    "shapes": Flag("EDGE_CASE", "Empty weights, one input, one output."),
    "absent": Flag("EDGE_CASE", "Absent tensors, or none at all."),
    "mixed-dtypes": Flag("EDGE_CASE", "Several dtypes in one list, or in one pair."),
    "mismatch": Flag("EDGE_CASE", "Shapes that do not fit each other."),
}


def cases(c: Cases) -> None:
    """Write the cases."""
    random, nan, inf = Stream(57), np.nan, np.inf

    def add(name: str, flags: str, labels: str, w: Any, x: Any, dtypes: Any = ALL) -> None:
        c.add(name, flags, labels, {"weights": w, "activations": x}, dtypes=dtypes)

    # fmt: off
    add("torchao-order", "observed order", "C1", [tensor([4.0], [1.0])], [tensor([1, 3])])
    add("two-rows", "observed order", "C1", [tensor([1, 2], [10, 20])], [tensor([12, 1], [5, 0.75])])
    add("three-four-five", "basic", "C1", [tensor([1, -2, 0.5], [-3, 0.25, 4])], [tensor([3, 5], [-4, 12])])
    add("several", "basic", "C1 C2", [random.uniform(4, 3)], [random.uniform(6, 4, low=-3)])
    add("two-weights", "basic", "C1 C2", [random.uniform(3, 5), random.uniform(5, 2)],
        [random.uniform(4, 3), random.uniform(2, 5, low=-8)])
    add("wide-range", "basic", "C1 C3", [random.spread(3, 4, high=10)], [random.spread(5, 3, high=50)])
    add("square", "square", "C1", [tensor([1, -2], [3, 0.5])], [tensor([1, 4], [2, -3], [0.5, 0.25])])
    add("square-three", "square", "C1", [random.uniform(3, 3)], [random.uniform(2, 3, low=-5)])
    add("square-of-samples", "square samples", "C1", [random.uniform(3, 3)], [random.uniform(3, 3)])
    add("one-sample", "samples", "C1", [tensor([2, -1], [0.5, 3])], [tensor([-0.75, 4])])
    add("seven-samples", "samples", "C1", [random.uniform(2, 2)], [random.uniform(7, 2)])
    add("forty-samples", "samples", "C1", [random.uniform(2, 3)], [random.uniform(40, 2)])
    add("same-sample-twice", "samples", "C1", [tensor([2.0], [0.5])], [tensor([3, -4], [3, -4])])
    add("no-samples", "samples zeros", "C7", [tensor([2, 1], [0.5, -3])], [np.zeros((0, 2))])
    add("dead-input", "zeros", "C7", [tensor([2, 1], [0.5, -3])], [tensor([0, 2], [-0.0, 1])])
    add("zero-weights", "zeros", "C1", [tensor([0, -0.0], [1, -2])], [tensor([3, 2], [1, -1])])
    add("nan-activation", "non-finite", "C5", [tensor([2, 0], [0.5, -3], [1, 4])],
        [tensor([1, nan, 2], [3, 1, -0.5])])
    add("infinite-activation", "non-finite", "C5", [tensor([2, 0], [0.5, -3], [1, 4])],
        [tensor([1, -inf, 2], [3, 1, -0.5])])
    add("infinity-and-nan", "non-finite", "C5", [tensor([2, 1], [0.5, -3])], [tensor([inf, 1], [nan, 2])])
    add("non-finite-weight", "non-finite", "C5", [tensor([nan, 1], [-inf, -3])], [tensor([0.5, 1], [2, 0.25])])
    add("infinite-zero", "non-finite zeros", "C5", [tensor([inf, 1], [-3, 0])], [tensor([0, inf])])
    add("squares-overflow", "extreme", "C3", [tensor([1e-5, 2], [3, -1e-3])], [tensor([1e20, 3e22],
        [-2e21, 1e22])], ("float32", "bfloat16"))
    add("squares-vanish", "extreme", "C3", [tensor([1e5, 2], [3, -1e3])], [tensor([1e-25, 3e-23],
        [-2e-24, 1e-22])], ("float32", "bfloat16"))
    add("squares-overflow", "extreme", "C3", [tensor([0.01, 2], [3, -1])], [tensor([300, 400],
        [-1000, 2000])], ("float16",))
    add("squares-vanish", "extreme", "C3", [tensor([30, 2], [3, -100])], [tensor([1e-4, 3e-5], [-2e-4,
        1e-4])], ("float16",))
    add("squares-overflow", "extreme", "C3", [tensor([1e-5, 2], [3, -1])], [tensor([1e200, 3e180],
        [-2e199, 1e181])], ("float64",))
    add("squares-vanish", "extreme", "C3", [tensor([1e5, 2], [3, -1])], [tensor([1e-200, 3e-180],
        [-2e-199, 1e-181])], ("float64",))
    add("one-input", "shapes", "C1 C2", [tensor([2, -1, 0.5])], [tensor([3.0], [-4])])
    add("one-output", "shapes", "C1 C2", [tensor([2.0], [-1], [0.5])], [random.uniform(2, 3, low=-4)])
    add("no-inputs", "shapes", "C2", [np.zeros((0, 3))], [np.zeros((2, 0))])
    add("no-outputs", "shapes", "C2", [np.zeros((2, 0))], [tensor([1, 2])], ("float32",))
    add("no-activations", "absent", "C4", [tensor([2, 1], [0.5, -3]), tensor([1.0])], [None, tensor([2.5])])
    add("no-weight", "absent", "C4", [None, tensor([1.0, -2])], [tensor([2.0, 1]), tensor([2.5])])
    add("no-tensors", "absent", "C4", [], [], ("float32",))
    add("mixed", "mixed-dtypes", "C2", [fixed([[0.3, -1.5]], "float16"), fixed([[0.1], [0.7]], "float64"),
        tensor([0.2, -3])], [fixed([[0.7], [2.0]], "float16"), fixed([[0.9, -0.3]], "float64"),
        tensor([1.1], [0.6])], ("float32",))
    add("wide-activations", "mixed-dtypes", "C2 C3", [tensor([0.3, -1.5], [0.2, 4])],
        [fixed([[0.7, 2.0], [300.5, -0.1]], "float32")], ("float16", "bfloat16"))
    square, two = tensor([1, 2], [3, 4]), tensor([0.5, 1])
    add("transposed", "mismatch", "C6", [random.uniform(3, 2)], [random.uniform(4, 2)], ("float32",))
    add("vector", "mismatch", "C6", [square], [tensor(0.5, 1)], ("float32",))
    add("images", "mismatch", "C6", [square], [random.uniform(2, 3, 2)], ("float32",))
    add("kernel", "mismatch", "C6", [random.uniform(2, 2, 3, 4)], [random.uniform(5, 2)], ("float32",))
    add("fewer-activations", "mismatch", "C6", [square, square], [two], ("float32",))
    # fmt: on


OPERATION = Operation(
    id="score.wanda",
    summary="Score each weight of a dense layer by what usually flows through it.",
    formula="s_jk = |w_jk|·‖x_j‖₂",
    sources=(
        "M. Sun, Z. Liu, A. Bair, J. Z. Kolter: A simple and effective pruning approach for large language"
        " models. ICLR 2024",
    ),
    constraints=CONSTRAINTS,
    inputs={
        "weights": "list of dense weights (in, out); null is an absent one",
        "activations": "list of what came in, (samples, in); null is an absent one",
    },
    outputs=scores.OUTPUTS,
    params=(),
    dials=(
        Dial("activation_norm", "norm",
             "root_mean_square: ‖x_j‖/√samples; squared_norm: ‖x_j‖², which ranks differently",
             ("root_mean_square", "squared_norm")),
    ),
    oracle=oracle,
    tolerance=tolerance,
    tolerance_why=TOLERANCE_WHY,
    flags=FLAGS,
    cases=cases,
    mistakes=MISTAKES,
)  # fmt: skip
