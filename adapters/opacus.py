"""Opacus: per-example clipping, ``opacus.optimizers.DPOptimizer`` without its noise."""

from __future__ import annotations

from typing import Any

import opacus
import torch
from opacus.optimizers import DPOptimizer, DPPerLayerOptimizer
from torch import Tensor

from adapters._torch_arrays import to_numpy, to_torch
from adapters.base import Adapter, Rejected, Unsupported

adapter = Adapter(
    "opacus",
    version=opacus.__version__,
    homepage="https://opacus.ai",
    to_native=to_torch,
    to_numpy=to_numpy,
)


@adapter.operation(
    "clip.per_example",
    dtypes=("float64", "float32"),
    dialect={
        "eps_at": "denominator", "eps": 1e-6, "nonfinite": "multiply", "norm": "naive",
        "infinite_limit": "multiply", "nan_limit": "nan", "negative_limit": "flip_sign",
    },
)  # fmt: skip
def clip_per_example(
    grads: list[Tensor | None], *, max_norm: float, reduction: str, scope: str
) -> dict[str, Any]:
    """``DPOptimizer.clip_and_accumulate`` and ``scale_grad``; the norms are those that it takes."""
    samples = [grad for grad in grads if grad is not None]
    if len(samples) < len(grads) or not samples:
        raise Unsupported("every parameter of a DPOptimizer has gradients of the examples")
    if any(grad.ndim == 0 for grad in samples):
        raise Unsupported("a gradient of examples has an axis of examples")
    parameters = [torch.nn.Parameter(torch.zeros_like(grad[:1].sum(0))) for grad in samples]
    plain = torch.optim.SGD(parameters, lr=1.0)
    options = {"expected_batch_size": len(samples[0]), "loss_reduction": reduction}
    optimizer: Any
    if scope == "tensor":
        limits = [max_norm] * len(parameters)
        optimizer = DPPerLayerOptimizer(
            plain, noise_multiplier=0.0, max_grad_norm=limits, **options
        )
    else:
        optimizer = DPOptimizer(plain, noise_multiplier=0.0, max_grad_norm=max_norm, **options)
    for parameter, grad in zip(parameters, samples, strict=True):
        parameter.grad_sample = grad
    try:
        optimizer.clip_and_accumulate()
    except RuntimeError as error:  # torch.stack's, of norms of unequal numbers of examples
        raise Rejected(str(error).partition("\n")[0]) from error
    for parameter in parameters:
        parameter.grad = parameter.summed_grad
    optimizer.scale_grad()
    each = [g.reshape(len(g), g[:1].numel()).norm(2, dim=1) for g in samples]
    # Parameters with unequal numbers of examples have no table of norms.
    norms: Any = torch.stack(each) if len({len(g) for g in samples}) == 1 else each
    return {
        "grads": [parameter.grad for parameter in parameters],
        "norms": norms if scope == "tensor" else norms.norm(2, dim=0),
    }
