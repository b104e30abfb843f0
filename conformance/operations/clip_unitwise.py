"""``clip.unitwise``: adaptive clipping (AGC): each output unit's gradient against its own weights."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil, isnan
from typing import Any

import numpy as np

from conformance.exact import INF, Exact, Real, Reject, each, exact, real
from conformance.formats import FLOATS, Tensor
from conformance.operation import Dial, Flag, Mistake, Operation, Param, Value, widest
from conformance.operations._clip_unitwise_cases import cases
from conformance.oracle import clipping

Settings = dict[str, Any]
Rule = Callable[[Tensor, Tensor, Settings], tuple[Real, Real]]
"""Returns, from a unit's gradient and weights, the norm and the limit."""


def norm_and_limit(g: Tensor, w: Tensor, settings: Settings) -> tuple[Real, Real]:
    """‖g_i‖ and λ·max(‖w_i‖, eps) of one unit."""
    n = clipping.norm([g], settings).exact.item()
    of_weight = clipping.norm([w], settings).exact.item()
    return n, _share(of_weight, settings)


def _share(of_weight: Real, settings: Settings) -> Real:
    ratio, eps = clipping.number(settings["clipping"]), real(settings["eps"])
    if ratio == np.inf:
        return INF
    return real(ratio) * (of_weight if of_weight != of_weight else max(of_weight, eps))


def oracle(
    inputs: dict[str, Any], settings: Settings, rule: Rule = norm_and_limit
) -> dict[str, Any]:
    """For every unit: g_i ← g_i · min(1, λ·max(‖w_i‖, eps) / ‖g_i‖)."""
    pairs = list(_checked(inputs, settings))
    return {"grads": [None if g is None else _clipped(g, w, settings, rule) for g, w in pairs]}


def _checked(inputs: dict[str, Any], settings: Settings) -> list[tuple[Any, Any]]:
    ratio, eps = clipping.number(settings["clipping"]), clipping.number(settings["eps"])
    if isnan(ratio) and settings["nan_limit"] == "reject":
        raise Reject("clipping must be a number >= 0, got nan")
    if ratio < 0 and settings["negative_limit"] == "reject":
        raise Reject(f"clipping must be >= 0, got {ratio}")
    if not 0 <= eps < np.inf:
        raise Reject(f"eps must be finite and >= 0, got {eps}")
    grads, weights = inputs["grads"], inputs["weights"]
    if len(grads) != len(weights):
        raise Reject(f"{len(grads)} gradients but {len(weights)} weights")
    for g, w in zip(grads, weights, strict=True):
        if g is not None and (w is None or g.shape != w.shape):
            raise Reject("every gradient needs weights of its own shape")
        if g is not None:
            unit_axes(g.shape, settings)
    return list(zip(grads, weights, strict=True))


def unit_axes(shape: tuple[int, ...], settings: Settings) -> tuple[int, ...]:
    """Return the axes whose positions are the units; none: the tensor is one unit."""
    counted = [n for n in shape if n != 1 or settings["singleton_axes"] == "count"]
    if len(counted) <= 1:
        return ()
    given = settings["unit_axis"]
    axes = [given] if isinstance(given, int) else list(given)
    if any(not -len(shape) <= axis < len(shape) for axis in axes):
        raise Reject(f"unit_axis {given} is no axis of shape {list(shape)}")
    axes = [axis % len(shape) for axis in axes]
    if len(set(axes)) < len(axes):
        raise Reject(f"unit_axis {given} names an axis twice")
    return tuple(axes)


def units(tensor: Tensor, settings: Settings) -> Tensor:
    """Return a tensor as one row per unit."""
    axes = unit_axes(tensor.shape, settings)
    count = int(np.prod([tensor.shape[axis] for axis in axes], dtype=np.int64))
    moved = np.moveaxis(tensor, axes, range(len(axes)))
    return moved.reshape(count, tensor.size // count if count else 0)


def clip_settings(settings: Settings) -> Settings:
    """Return the settings as those of a clip by the 2-norm, with the limit left to each unit."""
    fixed = {
        "max_norm": 1.0, "ord": 2, "eps_at": "max", "eps": settings["div_eps"], "nan_limit": "nan",
        "norm_dtype": "float32_or_wider", "below_limit": "unchanged", "zero_over_zero": "zero",
        "zero_limit": "zeros",
    }  # fmt: skip
    return settings | fixed


def _clipped(g: Tensor, w: Tensor, settings: Settings, rule: Rule) -> Value | Tensor:
    clip = clip_settings(settings)
    rows, weights = units(g, settings), units(w, settings)
    clipped = []
    for row, weight in zip(rows, weights, strict=True):
        n, limit = rule(row, weight, clip | {"eps": settings["eps"]})
        clipped.append(clipping.apply(row, n, clip, exact_limit=limit))
    if not any(isinstance(row, Value) for row in clipped):
        return g
    values = [row.exact if isinstance(row, Value) else exact(row) for row in clipped]
    return _joined(values, g, settings)


def _joined(values: list[Exact], g: Tensor, settings: Settings) -> Value:
    """Put rows of units back into the shape of their tensor."""
    axes = unit_axes(g.shape, settings)
    moved_shape = np.moveaxis(g, axes, range(len(axes))).shape
    together = np.array(values, dtype=object).reshape(moved_shape)
    return Value(np.moveaxis(together, range(len(axes)), axes), g.dtype.name)


def tolerance(inputs: dict[str, Any], settings: Settings) -> dict[str, int]:
    """ULP allowed: the largest of any unit; the derivation is TOLERANCE_WHY."""
    allowed = [0]
    for g, w in zip(inputs["grads"], inputs["weights"], strict=True):
        if g is not None and g.size:
            clip = clip_settings(settings)
            rows = zip(units(g, settings), units(w, settings), strict=True)
            allowed.extend(_unit_ulps(row, weight, clip) for row, weight in rows)
    return {"grads": max(allowed)}


def _unit_ulps(row: Tensor, weight: Tensor, clip: Settings) -> int:
    precision, wide = FLOATS[row.dtype.name].precision, FLOATS[widest([weight])].precision
    of_weight = clipping.norm_ulps([weight], clip) * 2.0 ** (precision - wide)
    return clipping.grad_ulps([row], clip) + ceil(of_weight) + (7 if precision < 24 else 3)


TOLERANCE_WHY = (
    "The norm of a unit's gradient over N elements as for clip.norm: N·u/2 and 4 for powers, root and norm"
    " of norms; 4 for c/n and the product. Its limit: the same for the weights' norm, and 3 for rounding"
    " λ and eps and for their product. 16-bit gradients may have each of seven elementary operations"
    " rounded to 16 bits; the sums run in float32."
)


def _elsewhere(change: Callable[[Settings], Settings]) -> Any:
    def mistaken(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
        oracle(inputs, settings)
        return oracle(inputs, change(settings))

    return mistaken


def _other_axis(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """The norm runs along the unit axis instead of across it."""
    right = oracle(inputs, settings)["grads"]
    result = []
    for g, w, kept in zip(inputs["grads"], inputs["weights"], right, strict=True):
        if g is None or g.ndim < 2:
            result.append(kept)
            continue
        axes = unit_axes(g.shape, settings)
        others = [axis for axis in range(g.ndim) if axis not in axes]
        result += oracle({"grads": [g], "weights": [w]}, settings | {"unit_axis": others})["grads"]
    return {"grads": result}


def _elementwise_vectors(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """Every element of a bias is a unit by itself."""
    right = oracle(inputs, settings)["grads"]
    for i, (g, w) in enumerate(zip(inputs["grads"], inputs["weights"], strict=True)):
        if g is not None and g.ndim == 1:
            columns = {"grads": [g[:, None]], "weights": [w[:, None]]}
            apart = oracle(columns, settings | {"unit_axis": 0, "singleton_axes": "count"})[
                "grads"
            ][0]
            right[i] = Value(apart.exact[:, 0], apart.dtype) if isinstance(apart, Value) else g
    return {"grads": right}


def _rule(change: Callable[[Real, Real, Settings], tuple[Real, Real]]) -> Any:
    def rule(g: Tensor, w: Tensor, settings: Settings) -> tuple[Real, Real]:
        return change(
            clipping.norm([g], settings).exact.item(),
            clipping.norm([w], settings).exact.item(),
            settings,
        )

    return lambda inputs, settings: oracle(inputs, settings, rule)


def _added_floor(n: Real, of_weight: Real, settings: Settings) -> tuple[Real, Real]:
    return n, _share(of_weight + real(settings["eps"]), settings)


def _unclamped(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """Every unit is multiplied by its limit / norm, also where that is above 1."""
    result = oracle(inputs, settings)["grads"]
    for i, (g, w) in enumerate(zip(inputs["grads"], inputs["weights"], strict=True)):
        if g is None:
            continue
        rows = []
        for row, weight in zip(units(g, settings), units(w, settings), strict=True):
            n, limit = norm_and_limit(
                row, weight, clip_settings(settings) | {"eps": settings["eps"]}
            )
            factor = limit / n if 0 < n < INF and limit < INF else real(1)
            rows.append(each(lambda x, by=factor: x * by, exact(row)))
        result[i] = _joined(rows, g, settings)
    return {"grads": result}


def _first_axis_only(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """A rank-3 kernel is reduced over its first axis, whatever its units are."""
    right = oracle(inputs, settings)["grads"]
    for i, (g, w) in enumerate(zip(inputs["grads"], inputs["weights"], strict=True)):
        if g is not None and g.ndim >= 3:
            rest = list(range(1, g.ndim))
            one = {"grads": [g], "weights": [w]}
            right[i] = oracle(one, settings | {"unit_axis": rest})["grads"][0]
    return {"grads": right}


MISTAKES = (
    Mistake(
        "one norm for the tensor", "the ratio is taken over the whole tensor, not per unit",
        _elsewhere(lambda s: s | {"unit_axis": [], "singleton_axes": "count"}),
        ("karpathy/nanochat#162",),
    ),
    Mistake("norm along the units", "the norm runs over the unit axis", _other_axis, ("SlopDotCash/asi#439",)),
    Mistake("bias per element", "each element of a vector is a unit", _elementwise_vectors),
    Mistake("first axis only", "with several axes only axis 0 is reduced",
            _first_axis_only, ("google-deepmind/optax#906",)),
    Mistake("floor forgotten", "eps is ignored: units that start at zero never learn",
            _elsewhere(lambda s: s | {"eps": 0.0})),
    Mistake("floor added", "eps is added to the norm of the weights", _rule(_added_floor)),
    Mistake("weights ignored", "the limit is λ itself",
            _rule(lambda n, of_weight, s: (n, _share(real(1), s)))),
    Mistake("squared norms", "the roots are forgotten",
        _rule(lambda n, of_weight, s: (n * n, _share(of_weight**2, s)))),
    Mistake("coefficient unclamped", "gradients below the limit are enlarged", _unclamped),
)  # fmt: skip


CONSTRAINTS = {
    "C1": "A unit is a position along unit_axis (one axis, or several); its norm runs over all other axes.",
    "C2": "Each unit's limit is clipping · max(‖w‖, eps), of its own weights.",
    "C3": "A unit whose gradient's norm exceeds its limit is multiplied by limit / norm; no other is touched.",
    "C4": "A tensor of which no unit exceeds its limit comes back bit for bit.",
    "C5": "A scalar or a vector is one unit as a whole; so is any tensor if unit_axis is [].",
    "C6": "Norms are right whenever they are representable; 16-bit tensors are accumulated in float32.",
    "C7": "A NaN or infinite norm makes every element of that unit NaN, and of no other.",
    "C8": "clipping = 0 gives zeros; clipping = +inf gives the input; infinite weights limit nothing.",
    "C9": "A negative or NaN clipping or eps is refused, and an infinite eps.",
    "C10": "An axis that the tensor has not, or an axis named twice, is refused.",
    "C11": "An absent gradient stays absent; a gradient without weights of its shape is refused.",
    "C12": "Each output has the dtype and shape of its gradient.",
}

FLAGS = {
    "units": Flag("BASIC", "Units with different ratios: some above their limit, some below."),
    "layouts": Flag(
        "KNOWN_BUG", "Dense (in, out) and (out, in), HWIO and OIHW: the unit axis is given, not guessed.",
        ("SlopDotCash/asi#439", "google-deepmind/optax#906"),
    ),
    "ranks": Flag(
        "KNOWN_BUG", "Kernels of three and five axes, where a rule by rank fails.",
        ("google-deepmind/optax#906",),
    ),
    "several-axes": Flag("BASIC", "Several unit axes, none, or all."),
    "singleton": Flag("DIALECT", "Axes of length 1: a (n, 1) kernel has n units, or one."),
    "one-bad-unit": Flag(
        "KNOWN_BUG", "One unit with a huge gradient must not shrink the others.", ("karpathy/nanochat#162",)
    ),
    "vector": Flag("BASIC", "Biases and gains: one unit as a whole."),
    "at-limit": Flag("EDGE_CASE", "A norm equals its limit exactly."),
    "below": Flag("BASIC", "Nothing may change, not one bit."),
    "zero-weights": Flag("EDGE_CASE", "Weights that are zero or tiny: eps takes their place."),
    "zero-gradient": Flag("EDGE_CASE", "Units without a gradient."),
    "tiny-limit": Flag("DIALECT", "Limits and norms below 1e-6, where a floor of the division shows."),
    "zero-clipping": Flag("EDGE_CASE", "clipping = 0."),
    "infinite-clipping": Flag("EDGE_CASE", "clipping = inf."),
    "bad-clipping": Flag("EDGE_CASE", "A negative or NaN clipping or eps."),
    "bad-axis": Flag("EDGE_CASE", "Axes that the tensor has not, or has once."),
    "nonfinite": Flag("EDGE_CASE", "NaN or infinity among gradients or weights."),
    "square-overflow": Flag("OVERFLOW", "Squares overflow or flush although the norms do not."),
    "absent": Flag("EDGE_CASE", "Absent gradients or weights, empty lists."),
    "mismatch": Flag("EDGE_CASE", "Lists or shapes that do not fit each other."),
    "shapes": Flag("EDGE_CASE", "0-d and empty tensors."),
    "mixed-dtypes": Flag("EDGE_CASE", "16-bit gradients of wide weights, several dtypes in one list."),
    "wide-range": Flag("PRECISION", "Magnitudes from 1e-3 to 1e3, both signs."),
}  # fmt: skip


def _dial(name: str) -> Dial:
    return next(dial for dial in clipping.DIALS if dial.name == name)


OPERATION = Operation(
    id="clip.unitwise",
    summary="Scale each output unit's gradient so that its norm is at most a share of its weights' norm.",
    formula="for every unit i: g_i ← g_i · min(1, clipping · max(‖w_i‖, eps) / ‖g_i‖)",
    sources=(
        "A. Brock, S. De, S. L. Smith, K. Simonyan: High-performance large-scale image recognition without"
        " normalization. ICML 2021",
    ),
    constraints=CONSTRAINTS,
    inputs={
        "grads": "list of float tensors of any shapes; null is an absent gradient",
        "weights": "a tensor of the same shape for each gradient",
    },
    outputs={"grads": "the list, clipped unit by unit"},
    params=(
        Param("clipping", "λ, the largest ratio of norms: a number >= 0 without a unit", required=True),
        Param("unit_axis", "the axis of output units of a tensor with two or more axes, or a list of axes;"
              " negative ones count from the end", required=True),
        Param("eps", "the least norm that a unit's weights are taken to have", default=1e-3),
    ),
    dials=(
        Dial("div_eps", 0.0, "the division is by max(‖g‖, div_eps)", (1e-6,)),
        Dial("singleton_axes", "count", "squeeze: axes of length 1 do not count, so a (n, 1) kernel is one"
             " unit", ("squeeze",)),
        _dial("nonfinite"),
        _dial("norm"),
        _dial("accumulate"),
        Dial("at_equal", "unchanged", "min(1, c/max(n, div_eps)), or the division whenever n >= c: with"
             " div_eps the two part", ("rescaled",), {"div_eps": 1e-6}),
        Dial("infinite_limit", "identity", "clipping or a weight is infinite: the input, or what"
             " min(1, c/n) gives (NaN where the norm is infinite too)", ("multiply",)),
        Dial("nan_limit", "reject", "clipping = NaN", ("nan",)),
        Dial("negative_limit", "reject", "clipping < 0", ("flip_sign",)),
    ),
    oracle=oracle,
    tolerance=tolerance,
    tolerance_why=TOLERANCE_WHY,
    flags=FLAGS,
    cases=cases,
    mistakes=MISTAKES,
)  # fmt: skip
