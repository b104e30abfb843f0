"""MLX on the CPU: ``mlx.optimizers`` with its clipping, ``mlx.nn`` layers and losses, ``mx.vjp``."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import ml_dtypes
import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np

from adapters import _mlx_layers
from adapters.base import FLOATS, Adapter, Unsupported, interval

Tensor = Any
Tensors = list[Any]
Outputs = dict[str, Any]

mx.set_default_device(mx.cpu)  # the only device that has float64

DTYPES = {np.dtype(np.float64): mx.float64, np.dtype(np.float32): mx.float32,
          np.dtype(np.float16): mx.float16, np.dtype(np.complex64): mx.complex64}  # fmt: skip


def to_mlx(array: np.ndarray[Any, Any]) -> Tensor:
    """Return an array of the same dtype: left to itself MLX makes float32 of float64."""
    if array.dtype == ml_dtypes.bfloat16:
        return mx.view(mx.array(array.view(np.uint16)), mx.bfloat16)
    return mx.array(array, dtype=DTYPES.get(array.dtype))


def to_numpy(tensor: Tensor) -> np.ndarray[Any, Any]:
    """Return the values of an array."""
    if tensor.dtype == mx.bfloat16:
        return np.array(mx.view(tensor, mx.uint16)).view(ml_dtypes.bfloat16)
    return np.array(tensor)


adapter = Adapter(
    "mlx",
    version=version("mlx"),
    homepage="https://ml-explore.github.io/mlx",
    to_native=to_mlx,
    to_numpy=to_numpy,
)


# --- clipping ---------------------------------------------------------------------------------


def _clip(grads: Tensors, max_norm: float, ord: float) -> tuple[Tensors, Tensor]:
    if ord != 2:
        raise Unsupported("MLX clips by the 2-norm only")
    if any(g is None for g in grads):
        raise Unsupported("a tree of MLX has no absent arrays")
    clipped, total = optim.clip_grad_norm(grads, max_norm)
    return clipped, total


CLIP_NORM = {
    "eps_at": "denominator", "eps": 1e-6, "nonfinite": "multiply", "norm": "naive",
    "infinite_limit": "multiply", "nan_limit": "nan",
}  # fmt: skip


@adapter.operation("clip.global_norm", (*FLOATS, "complex64"), CLIP_NORM | {"duplicates": "twice"})
def clip_global_norm(grads: Tensors, *, max_norm: float, ord: float) -> Outputs:
    """``mlx.optimizers.clip_grad_norm``."""
    clipped, total = _clip(grads, max_norm, ord)
    return {"grads": clipped, "total_norm": total}


@adapter.operation("clip.norm", (*FLOATS, "complex64"), CLIP_NORM)
def clip_norm(grads: Tensors, *, max_norm: float, ord: float) -> Outputs:
    """``mlx.optimizers.clip_grad_norm`` on one array at a time."""
    pairs = [None if g is None else _clip([g], max_norm, ord) for g in grads]
    return {
        "grads": [None if p is None else p[0][0] for p in pairs],
        "norms": [None if p is None else p[1] for p in pairs],
    }


@adapter.operation("clip.value", dialect={"crossed_bounds": "max_wins", "nan_limit": "nan"})
def clip_value(
    grads: Tensors,
    *,
    min: float | None = None,
    max: float | None = None,
    range: float | None = None,
) -> Outputs:
    """``mlx.core.clip``."""
    min, max = interval(min, max, range, "mlx.core.clip has no width beside its bounds")
    return {"grads": [None if g is None else mx.clip(g, min, max) for g in grads]}


# --- optimisers: the learning rate and Adam's corrections are float32 in every format -------------


def trajectory(make: Callable[[float], Any], params: Tensors, grads: Any, lr: Any) -> Outputs:
    """Step an optimiser through the given gradients; an absent one is left out of the tree."""
    rates = lr if isinstance(lr, list) else [lr] * len(grads)
    optimizer = make(rates[0] if rates else 0.0)
    tree = {str(i): p for i, p in enumerate(params)}
    optimizer.init(tree)
    after = []
    for rate, step in zip(rates, grads, strict=True):
        if len(step) != len(params):
            raise Unsupported("a tree of MLX has a gradient for each parameter")
        optimizer.learning_rate = rate
        given = {str(i): g for i, g in enumerate(step) if g is not None}
        tree |= optimizer.apply_gradients(given, {name: tree[name] for name in given})
        after.append(list(tree.values()))
    return {"params": after}


@adapter.operation("optim.sgd", ("float32",), {"first_buffer": "damped"})
def optim_sgd(params: Tensors, grads: list[Tensors], *, lr: Any, **options: Any) -> Outputs:
    """``mlx.optimizers.SGD``."""
    return trajectory(lambda rate: optim.SGD(rate, **options), params, grads, lr)


ADAM = {"hyperparameters": "input_dtype", "step_count": "optimizer"}


def _adam(
    kind: Any, params: Tensors, grads: list[Tensors], *, lr: Any, beta1: float, beta2: float,
    amsgrad: bool, **options: Any,
) -> Outputs:  # fmt: skip
    if amsgrad:
        raise Unsupported("MLX has no AMSGrad")
    options |= {"betas": [beta1, beta2], "bias_correction": True}
    return trajectory(lambda rate: kind(rate, **options), params, grads, lr)


@adapter.operation("optim.adam", ("float32",), ADAM)
def optim_adam(
    params: Tensors, grads: list[Tensors], *, weight_decay: float, **options: Any
) -> Outputs:
    """``mlx.optimizers.Adam``, whose bias correction is off by default."""
    if weight_decay:
        raise Unsupported("mlx.optimizers.Adam has no weight decay")
    return _adam(optim.Adam, params, grads, **options)


@adapter.operation("optim.adamw", ("float32",), ADAM)
def optim_adamw(params: Tensors, grads: list[Tensors], **options: Any) -> Outputs:
    """``mlx.optimizers.AdamW``, whose bias correction is off by default."""
    return _adam(optim.AdamW, params, grads, **options)


@adapter.operation("optim.rmsprop", ("float32",))
def optim_rmsprop(
    params: Tensors, grads: list[Tensors], *, lr: Any, alpha: float, eps: float, **options: Any
) -> Outputs:
    """``mlx.optimizers.RMSprop``."""
    if any(options.values()):
        raise Unsupported("mlx.optimizers.RMSprop has no momentum, centering or weight decay")
    return trajectory(lambda rate: optim.RMSprop(rate, alpha, eps), params, grads, lr)


@adapter.operation("optim.adagrad", ("float32",))
def optim_adagrad(
    params: Tensors, grads: list[Tensors], *, lr: Any, eps: float, **options: Any
) -> Outputs:
    """``mlx.optimizers.Adagrad``."""
    if any(options.values()):
        raise Unsupported("mlx.optimizers.Adagrad has no lr_decay, first accumulator or decay")
    return trajectory(lambda rate: optim.Adagrad(rate, eps), params, grads, lr)


# --- regularisation -----------------------------------------------------------------------------


def _penalty(weights: Tensors, term: Callable[[Tensor], Tensor], *strengths: float) -> Outputs:
    """Return the sum of a term over all weights, and what ``mx.value_and_grad`` makes of it."""
    if not all(0 <= strength < float("inf") for strength in strengths):
        raise Unsupported("a penalty is a user's expression, which checks no strength")
    given = [w for w in weights if w is not None]
    if not given:
        raise Unsupported("mlx.core.value_and_grad needs an array")

    def penalty(leaves: Tensors) -> Tensor:
        return sum((term(w) for w in leaves[1:]), term(leaves[0]))

    value, found = mx.value_and_grad(penalty)(given)
    grads = iter(found)
    return {"value": value, "grads": [None if w is None else next(grads) for w in weights]}


@adapter.operation("penalty.l1", ("float64", "float32"))
def penalty_l1(weights: Tensors, *, strength: float) -> Outputs:
    """What ``mx.grad`` makes of ``strength * mx.abs(w).sum()``."""
    return _penalty(weights, lambda w: strength * mx.abs(w).sum(), strength)


@adapter.operation("penalty.l2", ("float64", "float32"))
def penalty_l2(weights: Tensors, *, strength: float) -> Outputs:
    """What ``mx.grad`` makes of ``strength * mx.square(w).sum()``."""
    return _penalty(weights, lambda w: strength * mx.square(w).sum(), strength)


@adapter.operation("penalty.elastic_net", ("float64", "float32"))
def penalty_elastic_net(weights: Tensors, *, l1: float, l2: float) -> Outputs:
    """What ``mx.grad`` makes of ``l1 * mx.abs(w).sum() + l2 * mx.square(w).sum()``."""
    return _penalty(weights, lambda w: l1 * mx.abs(w).sum() + l2 * mx.square(w).sum(), l1, l2)


@adapter.operation("prox.l1")
def prox_l1(weights: Tensors, *, strength: float, step: float) -> Outputs:
    """``mlx.nn.softshrink``."""
    return {"weights": [None if w is None else nn.softshrink(w, strength * step) for w in weights]}


LACKING = {
    "MLX has no pruning": """
        score.magnitude score.gradient score.taylor score.snip score.movement score.fisher score.obd
        score.wanda prune.threshold prune.fraction prune.structured prune.n_m prune.block prune.shrink
        prune.clipped_gradient prune.iterative""",
    "MLX schedules learning rates only": """
        schedule.constant schedule.polynomial schedule.exponential""",
    "MLX has no clip by the norms of units or of examples": "clip.unitwise clip.per_example",
    "the norms of MLX are of one process": "dist.global_norm",
    "MLX has no groups in penalties, no other proximal steps and no projections": """
        penalty.group_lasso prox.l2 prox.elastic_net prox.group_lasso prox.hard_threshold
        project.l1_ball project.max_norm""",
    "MLX has no loop of its own that would accumulate, scale or skip": """
        train.step train.trajectory""",
    "mlx.nn.Dropout draws its own mask and takes none": "layer.dropout",
}


for why, operations in LACKING.items():
    adapter.lacks(why, operations)

_mlx_layers.register(adapter)
