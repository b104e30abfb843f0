"""PyTorch, called as a user calls it: ``torch.nn.utils``, ``torch.optim``, autograd."""

from __future__ import annotations

import torch

from adapters import (
    _torch_clipping,
    _torch_images,
    _torch_layers,
    _torch_losses,
    _torch_optimizers,
    _torch_pruning,
    _torch_regularization,
    _torch_sparsifiers,
    _torch_structured,
    _torch_training,
    _torch_trajectory,
)
from adapters._torch_arrays import to_numpy, to_torch
from adapters.base import Adapter

FAMILIES = (
    _torch_clipping,
    _torch_images,
    _torch_layers,
    _torch_losses,
    _torch_optimizers,
    _torch_pruning,
    _torch_regularization,
    _torch_sparsifiers,
    _torch_structured,
    _torch_training,
    _torch_trajectory,
)

adapter = Adapter(
    "torch",
    version=torch.__version__,
    homepage="https://pytorch.org",
    to_native=to_torch,
    to_numpy=to_numpy,
)
for _family in FAMILIES:
    adapter.include(_family.operations)

NO_SCORES = "torch.nn.utils.prune ranks inside its pruning methods; no function returns scores"
NO_SCHEDULE = "torch.ao.pruning's schedulers give a sparsity, not the steps that recompute masks"

LACKING = {
    "score.magnitude": NO_SCORES,
    "score.gradient": NO_SCORES,
    "score.taylor": NO_SCORES,
    "score.snip": NO_SCORES,
    "score.movement": NO_SCORES,
    "score.fisher": NO_SCORES,
    "score.obd": NO_SCORES,
    "score.wanda": NO_SCORES,
    "clip.unitwise": "torch.nn.utils clips by value and by norm, not unit by unit",
    "clip.per_example": "torch.func gives gradients per example; nothing of PyTorch clips them",
    "dist.global_norm": "PyTorch's sharded norms need a process group; this suite runs one process",
    "prune.clipped_gradient": "nothing of PyTorch clips and thresholds a gradient in one",
    "prune.threshold": "torch.nn.utils.prune has no pruning by threshold",
    "prune.shrink": "torch.nn.utils.prune only masks, it does not shrink",
    "schedule.constant": NO_SCHEDULE,
    "schedule.polynomial": NO_SCHEDULE,
    "schedule.exponential": NO_SCHEDULE,
}


for _operation_id, _reason in LACKING.items():
    adapter.lacks(_reason, _operation_id)
