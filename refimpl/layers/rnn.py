"""The simple recurrent layer, and backpropagation through time."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from ..arrays import Array, astype, namespace, widen
from ..checks import integer
from .checks import check_real, check_shape, check_upstream

Backprop: TypeAlias = Callable[[Array], tuple[Array, Array, Array, Array | None, Array]]


def rnn(
    x: Array, weight: Array, recurrent: Array, bias: Array | None, h0: Array, *,
    truncate: int | None = None,
) -> tuple[Array, Backprop]:  # fmt: skip
    """Return every state of ``h_t = tanh(x_t W + h_(t-1) U + b)`` and the backward pass.

    ``x`` is (N, T, in) with T >= 1, ``weight`` W (in, H), ``recurrent`` U (H, H), ``bias`` (H,) or
    None, ``h0`` (N, H), all of one real float dtype; ``y`` is (N, T, H): the states after each step.
    ``backprop(dy)`` returns ``(dx, dweight, drecurrent, dbias, dh0)`` (``dbias`` None without one).

    ``truncate=k`` cuts the sequence into stretches of k steps from the first one on, and the state
    that enters a stretch counts as a constant: the forward pass is unchanged, and no gradient goes
    back over a cut. Raises ValueError if a shape, a dtype or ``truncate`` (at least 1) does not fit
    (Werbos, "Backpropagation through time", 1990; Williams and Peng, "An efficient gradient-based
    algorithm for on-line training of recurrent network trajectories", 1990).
    """
    xp = namespace(x, weight, recurrent, bias, h0)
    check_real(xp, x=x, weight=weight, recurrent=recurrent, bias=bias, h0=h0)
    check_shape("x", x, ("N", "T", "in"))
    examples, steps, _ = x.shape
    check_shape("weight", weight, (x.shape[2], "H"))
    width = weight.shape[1]
    check_shape("recurrent", recurrent, (width, width))
    check_shape("h0", h0, (examples, width))
    if bias is not None:
        check_shape("bias", bias, (width,))
    if steps == 0:
        raise ValueError(f"x must have at least one step, got shape {tuple(x.shape)}")
    stretch = steps if truncate is None else integer("truncate", truncate, low=1)
    wide_x, w, u = widen(xp, x), widen(xp, weight), widen(xp, recurrent)

    states = [widen(xp, h0)]
    for t in range(steps):
        a = xp.matmul(wide_x[:, t, :], w) + xp.matmul(states[t], u)
        states.append(xp.tanh(a if bias is None else a + widen(xp, bias)))
    y = astype(xp, xp.stack(states[1:], axis=1), x.dtype)

    def backprop(dy: Array) -> tuple[Array, Array, Array, Array | None, Array]:
        check_upstream(dy, y)
        wide_dy = widen(xp, dy)
        dxs, dw, du, db = [], xp.zeros_like(w), xp.zeros_like(u), xp.zeros_like(xp.sum(u, axis=0))
        later = dh0 = xp.zeros_like(states[0])
        for t in reversed(range(steps)):
            da = (wide_dy[:, t, :] + later) * (1 - states[t + 1] ** 2)
            dxs.append(xp.matmul(da, w.T))
            dw += xp.matmul(wide_x[:, t, :].T, da)
            du += xp.matmul(states[t].T, da)
            db += xp.sum(da, axis=0)
            dh0 = xp.matmul(da, u.T)
            later = dh0 if t % stretch else xp.zeros_like(dh0)
        dx, *others = (
            astype(xp, d, x.dtype) for d in (xp.stack(dxs[::-1], axis=1), dw, du, db, dh0)
        )
        return dx, others[0], others[1], None if bias is None else others[2], others[3]

    return y, backprop
