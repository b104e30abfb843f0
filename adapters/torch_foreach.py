"""PyTorch where ``foreach`` is given: all tensors in one call of a kernel, or one tensor after the other.

Left to itself it chooses, on a CPU, the first for clipping and the second for optimisers (see ``torch.py``).
"""

from __future__ import annotations

from functools import partial

import torch

from adapters import torch as pytorch
from adapters.base import Adapter

OPERATIONS = (
    "clip.global_norm", "clip.norm", "clip.value",
    "optim.sgd", "optim.adam", "optim.adamw", "optim.rmsprop", "optim.adagrad",
)  # fmt: skip


def _adapter(name: str, foreach: bool) -> Adapter:
    adapter = Adapter(
        name,
        version=torch.__version__,
        homepage="https://pytorch.org",
        to_native=pytorch.to_torch,
        to_numpy=pytorch.to_numpy,
    )
    asked = pytorch.adapter
    for operation in OPERATIONS:
        function = partial(asked.functions[operation], foreach=foreach)
        dialect = asked.dialect.get(operation)
        adapter.operation(operation, asked.dtypes[operation], dialect)(function)
    return adapter


together = _adapter("torch_foreach", True)
one_by_one = _adapter("torch_foreach_false", False)
