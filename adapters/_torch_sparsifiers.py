"""PyTorch's pruning by N:M patterns and by blocks: ``torch.ao.pruning``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.ao.pruning import WeightNormSparsifier

from adapters._torch_arrays import refusing
from adapters._torch_pruning import TOPK
from adapters.base import Operations, Unsupported

Outputs = dict[str, Any]

operations = Operations()


def _sparsify(weights: Tensor, scores: Tensor, previous: Tensor | None, **config: Any) -> Outputs:
    """Step a ``WeightNormSparsifier`` whose norm is a function that returns the scores."""
    if previous is not None:
        raise Unsupported("torch.ao.pruning replaces a mask and takes none that was there before")
    if weights.ndim != 2:
        raise Unsupported("torch.ao.pruning's sparsifiers prune matrices")
    if scores.shape != weights.shape:
        raise Unsupported("the norm is computed from the weights, so it has their shape")
    layer = torch.nn.Module()
    layer.weight = torch.nn.Parameter(weights)
    model = torch.nn.Module()
    model.layer = layer
    sparsifier = WeightNormSparsifier(norm=lambda _: scores, **config)
    with refusing(RuntimeError, AssertionError, IndexError):
        sparsifier.prepare(model, [{"tensor_fqn": "layer.weight"}])
        sparsifier.step()
        mask = layer.parametrizations.weight[0].mask
        return {"mask": mask.bool(), "weights": layer.weight}


@operations.operation("prune.n_m", dialect=TOPK | {"masking": "multiply"})
def prune_n_m(
    weights: Tensor, scores: Tensor, previous: Tensor | None = None, *, n: int, m: int, axis: int
) -> Outputs:
    """``torch.ao.pruning.WeightNormSparsifier`` with ``zeros_per_block``, along the last axis."""
    if axis not in (0, 1, -1, -2):
        raise Unsupported("torch.ao.pruning's blocks have no axis")
    turned = weights.ndim == 2 and axis in (0, -2)
    if turned:
        weights, scores = weights.T.contiguous(), scores.T.contiguous()
    result = _sparsify(
        weights,
        scores,
        previous,
        sparsity_level=1.0,
        sparse_block_shape=(1, m),
        zeros_per_block=m - n,
    )
    return {name: t.T if turned else t for name, t in result.items()}


@operations.operation("prune.block", dialect=TOPK | {"masking": "multiply"})
def prune_block(
    weights: Tensor,
    scores: Tensor,
    previous: Tensor | None = None,
    *,
    block: list[int],
    amount: float,
    pool: str,
) -> Outputs:
    """``torch.ao.pruning.WeightNormSparsifier``, which ranks blocks by their mean."""
    if pool != "mean":
        raise Unsupported("torch.ao.pruning ranks blocks by their mean")
    if len(block) != 2:
        raise Unsupported("torch.ao.pruning's blocks have rows and columns")
    return _sparsify(
        weights, scores, previous, sparsity_level=float(amount), sparse_block_shape=tuple(block)
    )
