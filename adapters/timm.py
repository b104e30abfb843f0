"""timm: adaptive gradient clipping, ``timm.utils.agc.adaptive_clip_grad``.

That module needs PyTorch alone, while the package imports torchvision too, whose build must fit PyTorch's.
So the file is loaded by itself.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adapters._torch_arrays import to_numpy, to_torch
from adapters.base import Adapter, NotStarted, Rejected, Unsupported

Tensors = list[Tensor | None]


def _agc() -> Any:
    package = importlib.util.find_spec("timm")
    if package is None or not package.submodule_search_locations:
        raise NotStarted("not installed: timm; secateurs env timm")
    path = Path(package.submodule_search_locations[0]) / "utils" / "agc.py"
    spec = importlib.util.spec_from_file_location("timm_agc", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


agc = _agc()
adapter = Adapter(
    "timm",
    version=importlib.metadata.version("timm"),
    homepage="https://huggingface.co/docs/timm",
    to_native=to_torch,
    to_numpy=to_numpy,
)


def _units_first(tensor: Tensor, axis: int) -> Tensor:
    return tensor.movedim(axis, 0) if tensor.ndim > 1 else tensor


@adapter.operation(
    "clip.unitwise",
    dialect={
        "div_eps": 1e-6, "at_equal": "rescaled", "nonfinite": "multiply", "norm": "naive",
        "infinite_limit": "multiply", "nan_limit": "nan",
        "negative_limit": "flip_sign", "in_place": "documented",
    },
)  # fmt: skip
def clip_unitwise(
    grads: Tensors, weights: Tensors, *, clipping: float, unit_axis: Any, eps: float
) -> dict[str, Any]:
    """``timm.utils.agc.adaptive_clip_grad``, whose units are the first axis."""
    if len(grads) != len(weights):
        raise Unsupported("a gradient belongs to its parameter")
    axis = unit_axis[0] if isinstance(unit_axis, list) and len(unit_axis) == 1 else unit_axis
    if isinstance(axis, list):
        raise Unsupported("timm's units are along one axis")
    parameters = []
    for grad, weight in zip(grads, weights, strict=True):
        if weight is None:
            raise Unsupported("a parameter is always there")
        if weight.ndim > 1 and not -weight.ndim <= axis < weight.ndim:
            raise Unsupported("timm takes no axis: that of the units is the first")
        if grad is not None and grad.dtype != weight.dtype:
            raise Unsupported("in PyTorch a gradient has the dtype of its parameter")
        parameters.append(torch.nn.Parameter(_units_first(weight, axis)))
        try:
            parameters[-1].grad = None if grad is None else _units_first(grad, axis)
        except RuntimeError as error:
            raise Rejected(str(error)) from error
    # It writes to the gradients, so to those that its layout is a view of.
    agc.adaptive_clip_grad(parameters, clipping, eps)
    return {"grads": grads}
