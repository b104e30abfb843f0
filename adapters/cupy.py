"""The canonical implementation on a GPU, through CuPy."""

from __future__ import annotations

import cupy

from adapters._refimpl import canonical
from adapters.base import NotStarted
from refimpl import backends

try:
    backend = backends.backend("cupy")
except backends.Unavailable as error:
    raise NotStarted(str(error)) from error

adapter = canonical("cupy", cupy.__version__, backend.to_device, backend.to_numpy, "cupy")
