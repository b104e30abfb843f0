"""Sparse optimisation: a gradient step on the loss, then a proximal step or projection.

    minimise  loss(w) + penalty(w):   w ← prox(w - lr * gradient of the loss, lr)

The penalty never enters the gradient. That is why weights become zero exactly, where a subgradient
of the penalty inside any optimiser only makes them oscillate around zero.

The optimisers are pairs ``(init, update)`` like those of :mod:`refimpl.optimizers`, with the same
conventions for lists, dtypes, absent gradients and step counts::

    optimizer = fista(partial(prox_l1, strength=0.1), lr=1 / lipschitz(x))
    state = optimizer.init(params)
    for _ in range(100):
        _, grad = least_squares(x, params[0], targets)
        params, state = optimizer.update(params, [grad], state)
    weights = state["iterate"]

``prox`` is any function ``prox(weights, step=...)`` on a list of arrays: a proximal map of
:mod:`refimpl.regularization`, or a projection that ignores the step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol

from . import checks
from .arrays import Array, accumulation_dtype, astype, namespace
from .optimizers import Arrays, Optimizer, State
from .projections import hard_threshold

Rule = Callable[[Array, Array, Array, float, int], tuple[Array, Array]]


class Prox(Protocol):
    """A proximal map of several arrays."""

    def __call__(self, weights: Sequence[Array], /, *, step: float) -> list[Array | None]:
        """Return argmin_x (1/2) * |x - w|**2 + step * penalty(x)."""


def ista(prox: Prox, lr: float) -> Optimizer:
    """Return the proximal gradient method: w = prox(w - lr * g, lr).

    With lr = 1 / L, L a Lipschitz constant of the gradient of a convex loss, the objective F falls
    at every step and F(w_k) - F(w*) <= L * |w_0 - w*|**2 / (2 * k). The state holds ``step`` and
    ``iterate``, the weights in the accumulation dtype.

    Raises ValueError for an lr that is negative or not finite.
    Source: Beck & Teboulle 2009, "A Fast Iterative Shrinkage-Thresholding Algorithm", theorem 3.1.
    """

    def rule(w: Array, g: Array, before: Array, lr: float, k: int) -> tuple[Array, Array]:
        x = _proximal_step(prox, w, g, lr)
        return x, x

    return _proximal(rule, lr)


def fista(prox: Prox, lr: float) -> Optimizer:
    """Return the accelerated proximal gradient method.

    x_k = prox(y_k - lr * g(y_k), lr);  y_(k+1) = x_k + (t_k - 1) / t_(k+1) * (x_k - x_(k-1)),  with
    t_1 = 1 and t_(k+1) = (1 + sqrt(1 + 4 * t_k**2)) / 2. The parameters that come back are y, where
    the next gradient has to be taken; the solution is x, in ``state["iterate"]``: y need not be
    sparse. With lr = 1 / L, F(x_k) - F(w*) <= 2 * L * |w_0 - w*|**2 / (k + 1)**2, not monotonously.

    Raises ValueError for an lr that is negative or not finite.
    Source: Beck & Teboulle 2009, theorem 4.4.
    """

    def rule(w: Array, g: Array, before: Array, lr: float, k: int) -> tuple[Array, Array]:
        x = _proximal_step(prox, w, g, lr)
        ahead = (_t(k) - 1.0) / _t(k + 1)
        return x + ahead * (x - before), x

    return _proximal(rule, lr)


def iterative_hard_thresholding(count: int, lr: float = 1.0) -> Optimizer:
    """Return w = H(w - lr * g), H keeping the ``count`` largest magnitudes of each parameter.

    For the loss (1/2) * |A w - b|**2 with lr = 1 and b = A w*, w* with at most s = ``count``
    non-zeros: if A has a restricted isometry constant below 1 / sqrt(32) for 3 * s non-zeros,
    |w_k - w*| <= 2**-k * |w*| from w_0 = 0. With lr <= 1 / L the loss does not grow, whatever A is.

    Raises ValueError for a negative count, and an lr that is negative or not finite.
    Source: Blumensath & Davies 2009, "Iterative Hard Thresholding for Compressed Sensing".
    """
    count = checks.integer("count", count, low=0)
    return ista(lambda weights, *, step: hard_threshold(weights, count=count), lr)


def least_squares(x: Array, weights: Array, targets: Array) -> tuple[Array, Array]:
    """Return ``|x @ weights - targets|**2 / (2 * n)`` (0-d) and its gradient in the weights.

    ``x`` is (n, features), ``weights`` (features,) and ``targets`` (n,), or (features, outputs) and
    (n, outputs). The factor is that of the lasso: with :func:`refimpl.regularization.penalty_l1` of
    strength alpha the sum is scikit-learn's objective.
    Raises ValueError for shapes that would broadcast, such as (n, 1) against (n,), and for n = 0.
    """
    xp = namespace(x, weights, targets)
    if x.ndim != 2 or x.shape[0] == 0 or weights.ndim < 1 or x.shape[1] != weights.shape[0]:
        raise ValueError(
            "x must be (n, features), n > 0, and weights (features, ...), "
            f"got {tuple(x.shape)} and {tuple(weights.shape)}"
        )
    dtype = accumulation_dtype(xp, x, weights, targets)
    wide = astype(xp, x, dtype)
    y = wide @ astype(xp, weights, dtype)
    checks.same_shape("x @ weights", y, "targets", targets)
    error = y - astype(xp, targets, dtype)
    n = x.shape[0]
    value = xp.sum(error * error) / (2.0 * n)
    return value, astype(xp, (wide.T @ error) / n, weights.dtype)


def lipschitz(x: Array) -> Array:
    """Return the Lipschitz constant of the gradient of :func:`least_squares` (0-d).

    It is the largest eigenvalue of ``x.T @ x / n``. Needs the linear algebra extension of the array
    API; 16-bit ``x`` is computed in float32.
    """
    xp = namespace(x)
    wide = astype(xp, x, accumulation_dtype(xp, x))
    return xp.linalg.matrix_norm(wide, ord=2) ** 2 / x.shape[0]


def _proximal_step(prox: Prox, w: Array, g: Array, lr: float) -> Array:
    (x,) = prox([w - lr * g], step=lr)
    return x


_SEQUENCE = [math.nan, 1.0]


def _t(k: int) -> float:
    """Return t_k of FISTA; the sequence is the same for every parameter, so it is kept."""
    while len(_SEQUENCE) <= k:
        _SEQUENCE.append((1.0 + math.sqrt(1.0 + 4.0 * _SEQUENCE[-1] ** 2)) / 2.0)
    return _SEQUENCE[k]


def _proximal(rule: Rule, lr: float) -> Optimizer:
    """Turn a rule ``(w, g, previous iterate, lr, k) -> (next w, iterate)`` into an optimiser."""
    default_lr = checks.number("lr", lr, low=0.0)

    def init(params: Sequence[Array]) -> State:
        iterates = []
        for index, w in enumerate(params):
            xp = namespace(w)
            checks.real_floating(xp, f"params[{index}]", w)
            iterates.append(astype(xp, w, accumulation_dtype(xp, w)))
        return {"step": [0 for _ in params], "iterate": iterates}

    def update(
        params: Sequence[Array], grads: Arrays, state: State, lr: float | None = None
    ) -> tuple[list[Array], State]:
        rate = default_lr if lr is None else checks.number("lr", lr, low=0.0)
        checks.same_length("params", params, "grads", grads)
        checks.same_length("params", params, "the state", state["step"])
        new_params = list(params)
        new_state = {name: list(values) for name, values in state.items()}
        for index, (param, grad) in enumerate(zip(params, grads, strict=True)):
            if grad is None:
                continue
            xp = namespace(param, grad)
            checks.real_floating(xp, f"grads[{index}]", grad)
            checks.same_shape(f"params[{index}]", param, f"grads[{index}]", grad)
            dtype = accumulation_dtype(xp, param)
            k = state["step"][index] + 1
            w, x = rule(
                astype(xp, param, dtype),
                astype(xp, grad, dtype),
                state["iterate"][index],
                rate,
                k,
            )
            new_params[index] = astype(xp, w, param.dtype)
            new_state["step"][index], new_state["iterate"][index] = k, x
        return new_params, new_state

    return Optimizer(init, update)
