"""The canonical implementation on ``array-api-strict``: only what the array API standard promises.

Data-dependent shapes and boolean indexing are switched off, and the arrays live on a device that is not
the default one, so that an array made on the wrong device is an error, as it is on a GPU.
"""

from __future__ import annotations

from typing import Any

import array_api_strict
import numpy as np

from adapters._refimpl import canonical

array_api_strict.set_array_api_strict_flags(data_dependent_shapes=False, boolean_indexing=False)
DEVICE = array_api_strict.Device("device1")
HOST = array_api_strict.Device("CPU_DEVICE")


def to_strict(array: np.ndarray[Any, Any]) -> Any:
    """Copy a NumPy array to the device."""
    return array_api_strict.asarray(array, device=DEVICE, copy=True)


def to_numpy(array: Any) -> np.ndarray[Any, Any]:
    """Copy an array to the host; it must have stayed on the device until now."""
    if array.device != DEVICE:
        raise RuntimeError(f"a result lies on {array.device}, not on {DEVICE}")
    return np.asarray(array.to_device(HOST))


adapter = canonical(
    "array_api_strict",
    array_api_strict.__version__,
    to_strict,
    to_numpy,
    "array_api_strict",
)
