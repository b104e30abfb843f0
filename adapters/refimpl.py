"""The canonical implementation itself, as an ordinary participant (NumPy arrays)."""

from __future__ import annotations

from typing import Any

import numpy as np

from adapters import _refimpl_layers, _refimpl_optimizers, _refimpl_pruning, _refimpl_training
from adapters.base import Adapter
from refimpl import clipping

Tensors = list[Any]
Outputs = dict[str, Any]

adapter = Adapter("refimpl", version=np.__version__, to_native=lambda x: x, to_numpy=np.asarray)


@adapter.operation("clip.value")
def clip_value(grads: Tensors, **params: Any) -> Outputs:
    """``refimpl.clipping.clip_value``."""
    return {"grads": clipping.clip_value(grads, **params)}


@adapter.operation("clip.norm")
def clip_norm(grads: Tensors, *, max_norm: float, ord: float = 2, **dials: Any) -> Outputs:
    """``refimpl.clipping.clip_norm``."""
    clipped, norms = clipping.clip_norm(grads, max_norm, ord, **dials)
    return {"grads": clipped, "norms": norms}


@adapter.operation("clip.global_norm")
def clip_global_norm(grads: Tensors, *, max_norm: float, ord: float = 2, **dials: Any) -> Outputs:
    """``refimpl.clipping.clip_global_norm``."""
    clipped, total = clipping.clip_global_norm(grads, max_norm, ord, **dials)
    return {"grads": clipped, "total_norm": total}


for family in (_refimpl_pruning, _refimpl_layers, _refimpl_optimizers, _refimpl_training):
    adapter.include(family.operations)
