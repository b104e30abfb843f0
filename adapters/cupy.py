"""The canonical implementation on a GPU, through CuPy."""

from __future__ import annotations

import cupy

from adapters._refimpl import canonical
from adapters.base import NotStarted

try:
    DEVICES = cupy.cuda.runtime.getDeviceCount()
except cupy.cuda.runtime.CUDARuntimeError as error:
    raise NotStarted("there is no CUDA device") from error

adapter = canonical("cupy", cupy.__version__, cupy.asarray, cupy.asnumpy, "cupy")
