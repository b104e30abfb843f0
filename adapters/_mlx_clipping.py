"""MLX's clipping: ``mlx.optimizers.clip_grad_norm`` and ``mlx.core.clip``."""

from __future__ import annotations

import mlx.core as mx
import mlx.optimizers as optim

from adapters._mlx_arrays import Outputs, Tensor, Tensors
from adapters.base import FLOATS, Operations, Unsupported, interval

operations = Operations()


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


@operations.operation(
    "clip.global_norm", (*FLOATS, "complex64"), CLIP_NORM | {"duplicates": "twice"}
)
def clip_global_norm(grads: Tensors, *, max_norm: float, ord: float) -> Outputs:
    """``mlx.optimizers.clip_grad_norm``."""
    clipped, total = _clip(grads, max_norm, ord)
    return {"grads": clipped, "total_norm": total}


@operations.operation("clip.norm", (*FLOATS, "complex64"), CLIP_NORM)
def clip_norm(grads: Tensors, *, max_norm: float, ord: float) -> Outputs:
    """``mlx.optimizers.clip_grad_norm`` on one array at a time."""
    pairs = [None if g is None else _clip([g], max_norm, ord) for g in grads]
    return {
        "grads": [None if p is None else p[0][0] for p in pairs],
        "norms": [None if p is None else p[1] for p in pairs],
    }


@operations.operation("clip.value", dialect={"crossed_bounds": "max_wins", "nan_limit": "nan"})
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
