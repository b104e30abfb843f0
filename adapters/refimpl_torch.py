"""The canonical implementation on PyTorch tensors."""

from __future__ import annotations

import torch

from adapters._refimpl import canonical
from adapters._torch_arrays import to_numpy, to_torch

adapter = canonical("refimpl_torch", torch.__version__, to_torch, to_numpy, "torch")
