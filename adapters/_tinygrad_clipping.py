"""tinygrad's clipping: ``Tensor.clip``."""

from __future__ import annotations

from adapters._tinygrad_arrays import Outputs, Tensors
from adapters.base import Operations, Unsupported, interval

operations = Operations()


@operations.operation("clip.value", dialect={"crossed_bounds": "max_wins"})
def clip_value(
    grads: Tensors,
    *,
    min: float | None = None,
    max: float | None = None,
    range: float | None = None,
) -> Outputs:
    """``Tensor.clip``."""
    min, max = interval(min, max, range, "Tensor.clip has no width beside its bounds")
    if min is None and max is None:
        raise Unsupported("Tensor.clip is called with a bound")
    return {"grads": [None if g is None else g.clip(min, max) for g in grads]}
