"""PyTorch's pruning of slices: ``torch.nn.utils.prune.ln_structured``."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn.utils import prune

from adapters._torch_arrays import refusing
from adapters._torch_pruning import TOPK, mask_of, modules_of, quantity_of
from adapters.base import Operations

operations = Operations()


@operations.operation(
    "prune.structured",
    dialect=TOPK | {"masking": "multiply", "norm": "naive", "norm_dtype": "input_dtype"},
)
def prune_structured(
    weights: Tensor,
    previous: Tensor | None = None,
    *,
    axis: int,
    ord: float,
    amount: float | None = None,
    count: int | None = None,
) -> dict[str, Any]:
    """``prune.ln_structured``."""
    quantity = quantity_of(amount, count)
    (module,) = modules_of([weights], [previous])
    assert module is not None
    with refusing(RuntimeError, AssertionError, IndexError):
        prune.ln_structured(module, "weight", amount=quantity, n=ord, dim=axis)
    return {"mask": mask_of(module), "weights": module.weight}
