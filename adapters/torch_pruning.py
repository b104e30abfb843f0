"""Torch-Pruning: whole output channels of a layer, chosen by ``tp.pruner`` and ``GroupMagnitudeImportance``."""

from __future__ import annotations

import importlib.metadata
from typing import Any

import torch
import torch_pruning as tp
from torch import Tensor

from adapters._torch_arrays import to_numpy, to_torch
from adapters.base import Adapter, Unsupported

adapter = Adapter(
    "torch_pruning",
    version=importlib.metadata.version("torch-pruning"),
    homepage="https://github.com/VainF/Torch-Pruning",
    to_native=to_torch,
    to_numpy=to_numpy,
)


class Channels(torch.nn.Module):
    """A linear layer whose outputs are the slices, before one that takes them."""

    def __init__(self, rows: Tensor) -> None:
        """Hold the slices; a last column of numbers 0, 1, … says afterwards which ones are left."""
        super().__init__()
        self.layer = torch.nn.Linear(rows.shape[1], rows.shape[0], bias=False, dtype=rows.dtype)
        self.layer.weight.data = rows.clone()
        self.after = torch.nn.Linear(rows.shape[0], 1, bias=False, dtype=rows.dtype)
        numbers = torch.arange(rows.shape[0], dtype=rows.dtype)
        self.after.weight.data = numbers[None]

    def forward(self, x: Tensor) -> Tensor:
        """Run both layers."""
        return self.after(self.layer(x))


@adapter.operation(
    "prune.structured", dtypes=("float64", "float32"),
    dialect={"ties": "unspecified", "norm": "naive", "rounding": "kept_floor", "minimum_kept": 1},
)  # fmt: skip
def prune_structured(
    weights: Tensor,
    previous: Tensor | None = None,
    *,
    axis: int,
    ord: float,
    amount: float | None = None,
    count: int | None = None,
) -> dict[str, Any]:
    """``BasePruner`` with the importance Σ|w|^p of the layer's own weights; it removes what it prunes."""
    if previous is not None:
        raise Unsupported("Torch-Pruning removes channels, so there is no mask to go on from")
    if count is not None or amount is None:
        raise Unsupported("a pruner takes a ratio")
    if weights.ndim < 2 or not -weights.ndim <= axis < weights.ndim or weights.numel() == 0:
        raise Unsupported("the output channels of a layer are the first of two axes or more")
    if ord not in (1, 2):
        raise Unsupported("GroupMagnitudeImportance takes p = 1 or 2")
    rows = weights.movedim(axis, 0).flatten(1)
    model = Channels(rows)
    importance = tp.importance.GroupMagnitudeImportance(
        p=int(ord), group_reduction="first", normalizer=None
    )
    pruner = tp.pruner.BasePruner(
        model, torch.zeros(1, rows.shape[1], dtype=rows.dtype), importance,
        pruning_ratio=amount, ignored_layers=[model.after],
    )  # fmt: skip
    pruner.step()
    left = model.after.weight.detach()[0].long()
    mask = torch.zeros(len(rows), dtype=torch.bool)
    mask[left] = True
    shape = [-1 if a == axis % weights.ndim else 1 for a in range(weights.ndim)]
    mask = mask.reshape(shape).expand(weights.shape)
    return {"mask": mask, "weights": torch.where(mask, weights, torch.zeros_like(weights))}
