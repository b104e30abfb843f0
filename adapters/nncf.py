"""NNCF: unstructured magnitude pruning of PyTorch models, ``nncf.prune``."""

from __future__ import annotations

import logging
from typing import Any

import nncf
import torch
from nncf.torch.function_hook.pruning.magnitude.algo import get_pruned_modules
from torch import Tensor

from adapters._torch_arrays import to_numpy, to_torch
from adapters.base import Adapter, Unsupported

logging.disable(logging.WARNING)

adapter = Adapter(
    "nncf",
    version=nncf.__version__,
    homepage="https://github.com/openvinotoolkit/nncf",
    to_native=to_torch,
    to_numpy=to_numpy,
)


class Layers(torch.nn.Module):
    """A linear layer for each tensor, its weights in one row."""

    def __init__(self, tensors: list[Tensor]) -> None:
        """Hold the tensors."""
        super().__init__()
        self.layers = torch.nn.ModuleList()
        for tensor in tensors:
            layer = torch.nn.Linear(tensor.numel(), 1, bias=False, dtype=tensor.dtype)
            layer.weight.data = tensor.reshape(1, -1).clone()
            self.layers.append(layer)

    def forward(self, x: Tensor) -> Tensor:
        """Run every layer: NNCF prunes what it sees in use."""
        return torch.stack(
            [layer(x.new_zeros(1, layer.in_features).to(layer.weight.dtype)).sum().double()
             for layer in self.layers]
        )  # fmt: skip


MODES = {
    "tensor": nncf.PruneMode.UNSTRUCTURED_MAGNITUDE_LOCAL,
    "global": nncf.PruneMode.UNSTRUCTURED_MAGNITUDE_GLOBAL,
}


@adapter.operation(
    "prune.fraction", ("float64", "float32"),
    {"masking": "multiply", "ties": "prune_all", "score_sign": "ignored", "normalise": "layer_l2"},
)  # fmt: skip
def prune_fraction(
    weights: list[Any], scores: list[Any], previous: Any = None, *, amount: float | None = None,
    count: int | None = None, scope: str = "tensor",
) -> dict[str, Any]:  # fmt: skip
    """``nncf.prune``, local or global, of layers whose weights are the scores."""
    if previous is not None or count is not None or amount is None or len(weights) != len(scores):
        raise Unsupported("nncf.prune takes a ratio, and begins anew each time")
    pairs = [(w, s) for w, s in zip(weights, scores, strict=True) if w is not None]
    if any(s is None or s.shape != w.shape for w, s in pairs) or not pairs:
        raise Unsupported("nncf.prune ranks the weights themselves, of one layer or more")
    if any(s.numel() == 0 for _, s in pairs):
        raise Unsupported("nncf.prune takes the weights of layers, which are not empty")
    model = Layers([s for _, s in pairs])
    model = nncf.prune(model, MODES[scope], ratio=amount, examples_inputs=torch.zeros(1))
    hooks = get_pruned_modules(model)
    found = iter([hooks[f"layers.{i}.weight"].binary_mask for i in range(len(pairs))])
    masks = [None if w is None else next(found).reshape(w.shape) for w in weights]
    return {
        "masks": masks,
        "weights": [None if m is None else w * m for w, m in zip(weights, masks, strict=True)],
    }
