"""The simple recurrent layer and backpropagation through time, with rounding errors followed along.

Errors pass from step to step through U, so each number carries its own bound
(:class:`~conformance.oracle.optimizers.Tracked`): a gradient that explodes may be off by as much more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from conformance.exact import ONE, Real, Reject, ctx, each, full
from conformance.operation import Value
from conformance.oracle.layers import check_dtypes, check_shape
from conformance.oracle.normalisation import given, known, value
from conformance.oracle.optimizers import Tracked

Tensors = dict[str, Any]
ELEMENTARY = 4
"""Roundoffs that an elementary function may be off by."""


def matmul(a: Tracked, b: Tracked) -> Tracked:
    """Return the product of matrices: each term is rounded as often as there are terms."""
    shape, terms = (a.exact.shape[0], b.exact.shape[1]), a.exact.shape[1]
    sizes = full(shape) + abs(a.exact) @ abs(b.exact)
    passed = full(shape) + a.error @ abs(b.exact) + abs(a.exact) @ b.error
    return Tracked(full(shape) + a.exact @ b.exact, passed + terms * sizes)


def transposed(a: Tracked) -> Tracked:
    """Return the transpose."""
    return Tracked(a.exact.T, a.error.T)


def stacked(steps: list[Tracked], axis: int) -> Tracked:
    """Return the steps along one axis."""
    return Tracked(
        np.stack([s.exact for s in steps], axis=axis), np.stack([s.error for s in steps], axis=axis)
    )


def at(x: Tracked, t: int) -> Tracked:
    """Return one step of a sequence (N, T, …)."""
    return Tracked(x.exact[:, t], x.error[:, t])


def tanh(a: Tracked) -> Tracked:
    """Return tanh, which passes on an error times 1 - tanh²."""
    y = each(ctx.tanh, a.exact)
    return Tracked(y, a.error * (ONE - y * y) + ELEMENTARY * abs(y))


def rectified(a: Tracked) -> Tracked:
    """Return max(a, 0) (a mistake for tanh)."""
    return Tracked(each(lambda v: v if v > 0 or v != v else 0 * v, a.exact), a.error)


def check(inputs: Tensors, settings: Tensors) -> None:
    """Refuse what must be refused."""
    check_dtypes(**inputs)
    x, weight = inputs["x"], inputs["weight"]
    check_shape("x", x, ("N", "T", "in"))
    check_shape("weight", weight, (x.shape[2], "H"))
    width = weight.shape[1]
    check_shape("recurrent", inputs["recurrent"], (width, width))
    check_shape("bias", inputs["bias"], (width,))
    check_shape("h0", inputs["h0"], (x.shape[0], width))
    if x.shape[1] == 0:
        raise Reject("x must have at least one step")
    check_shape("dy", inputs["dy"], (x.shape[0], x.shape[1], width))
    truncate = settings["truncate"]
    if truncate is not None and truncate < 1:
        raise Reject(f"truncate must be at least 1, got {truncate}")


def cuts(settings: Tensors) -> Callable[[int], bool]:
    """Return whether no gradient passes from step t to t - 1: at every multiple of ``truncate``."""
    stretch = settings["truncate"]
    return lambda t: stretch is not None and t > 0 and t % stretch == 0


def rnn(
    inputs: Tensors,
    settings: Tensors,
    *,
    cut: Callable[[int], bool] | None = None,
    activate: Callable[[Tracked], Tracked] = tanh,
    derivative: Callable[[Tracked], Tracked] | None = None,
    shifted: bool = False,
) -> Tensors:
    """h_t = tanh(x_t W + h_(t-1) U + b); the keywords are places for known mistakes.

    ``cut`` says where no gradient passes, ``derivative`` what takes the place of 1 - h², and
    ``shifted`` multiplies dh_t with h_t where h_(t-1) belongs.
    """
    check(inputs, settings)
    cut = cut or cuts(settings)
    x, w, u, dy = (given(inputs[name]) for name in ("x", "weight", "recurrent", "dy"))
    (examples, steps, into), width = x.exact.shape, w.exact.shape[1]
    h = [given(inputs["h0"])]
    for t in range(steps):
        a = matmul(at(x, t), w) + matmul(h[t], u)
        h.append(activate(a if inputs["bias"] is None else a + given(inputs["bias"])))
    slope = derivative or (lambda state: known(ONE) - state * state)
    das: list[Tracked] = []
    dh0 = known(ctx.mpf(0), (examples, width))
    for t in reversed(range(steps)):
        dh = at(dy, t) if not das or cut(t + 1) else at(dy, t) + dh0
        das.insert(0, dh * slope(h[t + 1]))
        dh0 = matmul(das[0], transposed(u))
    return _outputs(inputs, x, w, h, das, dh0, shifted, (examples * steps, into, width))


def _outputs(
    inputs: Tensors, x: Tracked, w: Tracked, h: list[Tracked], das: list[Tracked], dh0: Tracked,
    shifted: bool, sizes: tuple[int, int, int],
) -> Tensors:  # fmt: skip
    rows, into, width = sizes
    da = flat(stacked(das, 1), rows, width)
    before = flat(stacked(h[1:] if shifted else h[:-1], 1), rows, width)
    ones = known(ONE, (1, rows))
    dbias = matmul(ones, da)
    dx = matmul(da, transposed(w))
    dtype = inputs["x"].dtype.name
    results = {
        "y": stacked(h[1:], 1),
        "dx": Tracked(dx.exact.reshape(x.exact.shape), dx.error.reshape(x.exact.shape)),
        "dweight": matmul(transposed(flat(x, rows, into)), da),
        "drecurrent": matmul(transposed(before), da),
        "dbias": Tracked(dbias.exact[0], dbias.error[0]),
        "dh0": dh0,
    }
    answer: dict[str, Value | None] = {name: value(v, dtype) for name, v in results.items()}
    return answer | ({"dbias": None} if inputs["bias"] is None else {})


def flat(x: Tracked, rows: int, width: int) -> Tracked:
    """Return (N, T, …) as (N·T, …)."""
    return Tracked(x.exact.reshape(rows, width), x.error.reshape(rows, width))


def mapped(result: Tensors, change: Callable[[Real], Real], *names: str) -> Tensors:
    """Return results with some outputs changed, element by element."""
    changed = {
        name: Value(each(change, result[name].exact), result[name].dtype)
        for name in names
        if result[name] is not None
    }
    return result | changed
