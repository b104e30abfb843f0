"""PyTorch's tensors in and out, and its refusals, for every adapter of a library that computes with it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ml_dtypes
import numpy as np
import torch
from torch import Tensor

from adapters.base import Rejected


def to_torch(array: np.ndarray[Any, Any]) -> Tensor:
    """Share the memory of an array, so that writing to the tensor is seen by the suite."""
    if array.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def to_numpy(tensor: Tensor) -> np.ndarray[Any, Any]:
    """Return a tensor's values as an array."""
    tensor = tensor.detach().contiguous()
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()


@contextmanager
def refusing(*errors: type[Exception]) -> Iterator[None]:
    """Take these errors as a refusal, around a call or a function that checks its arguments."""
    try:
        yield
    except errors as error:
        raise Rejected(str(error).partition("\n")[0]) from error
