"""PyTorch where ``foreach`` is given: all tensors in one call of a kernel, or one tensor after the other.

Left to itself it chooses, on a CPU, the first for clipping and the second for optimisers.
"""

from __future__ import annotations

from functools import partial

import torch

from adapters import _torch_clipping, _torch_optimizers
from adapters._torch_arrays import to_numpy, to_torch
from adapters.base import Adapter


def _adapter(name: str, foreach: bool) -> Adapter:
    adapter = Adapter(
        name,
        version=torch.__version__,
        homepage="https://pytorch.org",
        to_native=to_torch,
        to_numpy=to_numpy,
    )
    for shared in (_torch_clipping.operations, _torch_optimizers.operations):
        adapter.include(shared)
        for operation, function in shared.functions.items():
            adapter.functions[operation] = partial(function, foreach=foreach)
    return adapter


together = _adapter("torch_foreach", True)
one_by_one = _adapter("torch_foreach_false", False)
