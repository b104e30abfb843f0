"""PaddlePaddle's clipping: ``paddle.nn.utils``, ``paddle.nn.ClipGradByNorm`` and ``paddle.clip``."""

from __future__ import annotations

from typing import Any

import paddle
from paddle.nn import utils

from adapters._paddle_arrays import NARROW, WIDE, Outputs, Tensors
from adapters.base import Operations, Unsupported, interval

operations = Operations()


def _with_grads(grads: Tensors) -> list[Any]:
    """Return leaves that have these gradients."""
    leaves = []
    for grad in grads:
        leaf = paddle.zeros(
            [] if grad is None else grad.shape, "float32" if grad is None else grad.dtype
        )
        leaf.stop_gradient = False
        if grad is not None:
            leaf.grad = grad.clone()
        leaves.append(leaf)
    return leaves


CLIP_NORM = {
    "eps_at": "denominator", "eps": 1e-6, "nonfinite": "multiply", "norm": "naive",
    "infinite_limit": "multiply", "negative_limit": "flip_sign", "nan_limit": "nan",
}  # fmt: skip


@operations.operation("clip.global_norm", WIDE, CLIP_NORM | {"duplicates": "twice"})
def clip_global_norm(grads: Tensors, *, max_norm: float, ord: float) -> Outputs:
    """``paddle.nn.utils.clip_grad_norm_``."""
    if any(g is other for i, g in enumerate(grads) if g is not None for other in grads[:i]):
        raise Unsupported("a gradient of PaddlePaddle belongs to one parameter")
    if ord > 0 and ord not in (1, 2, float("inf")):
        raise Unsupported("paddle.nn.utils.clip_grad_norm_ knows the norms 0, 1, 2 and inf")
    leaves = _with_grads(grads)
    total = utils.clip_grad_norm_(leaves, max_norm, ord)
    return {"grads": [leaf.grad for leaf in leaves], "total_norm": total}


@operations.operation(
    "clip.norm",
    NARROW,  # the CPU has no kernel of it for float64
    {
        "nonfinite": "multiply", "norm": "naive", "infinite_limit": "nan", "below_limit": "unchanged",
    },
)  # fmt: skip
def clip_norm(grads: Tensors, *, max_norm: float, ord: float) -> Outputs:
    """``paddle.nn.ClipGradByNorm``, which returns no norm: the norms are those of ``paddle.linalg.norm``."""
    if ord != 2:
        raise Unsupported("paddle.nn.ClipGradByNorm knows the 2-norm only")
    clip = paddle.nn.ClipGradByNorm(max_norm)
    pairs = [(leaf, leaf.grad) for leaf in _with_grads(grads)]
    clipped = [None if g is None else clip([(leaf, g)])[0][1] for leaf, g in pairs]
    norms = [None if g is None else paddle.linalg.norm(g) for g in grads]
    return {"grads": clipped, "norms": norms}


@operations.operation("clip.value", WIDE, {"nan_limit": "reject"})
def clip_value(
    grads: Tensors,
    *,
    min: float | None = None,
    max: float | None = None,
    range: float | None = None,
) -> Outputs:
    """``paddle.nn.utils.clip_grad_value_``, whose interval is symmetric; ``paddle.clip`` for others."""
    min, max = interval(min, max, range, "PaddlePaddle has no width beside the bounds")
    if min is None and max is None:
        raise Unsupported("paddle.clip without a bound returns its input")
    if max is not None and min == -max:
        leaves = _with_grads(grads)
        utils.clip_grad_value_(leaves, max)
        return {"grads": [leaf.grad for leaf in leaves]}
    return {"grads": [None if g is None else paddle.clip(g, min, max) for g in grads]}
