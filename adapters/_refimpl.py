"""The canonical implementation on the arrays of one library; ``adapters/<library>.py`` names which."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from adapters import (
    _refimpl_clipping,
    _refimpl_distributed,
    _refimpl_layers,
    _refimpl_optimizers,
    _refimpl_pruning,
    _refimpl_regularization,
    _refimpl_training,
)
from adapters.base import FLOATS, Adapter

FAMILIES = (
    _refimpl_clipping,
    _refimpl_distributed,
    _refimpl_pruning,
    _refimpl_layers,
    _refimpl_optimizers,
    _refimpl_regularization,
    _refimpl_training,
)


def canonical(
    name: str,
    version: str,
    to_native: Callable[[Any], Any],
    to_numpy: Callable[[Any], Any],
    dtypes: tuple[str, ...] = FLOATS,
    dialect: Mapping[str, Any] | None = None,
) -> Adapter:
    """Return refimpl as a participant that is given, and must give back, arrays of one library.

    ``dtypes`` are the float formats that the library has; operations are listed in those only.
    ``dialect`` is what the library's arithmetic does in every operation (``subnormals=flush``).
    """

    def back(array: Any) -> Any:
        # Schedules are NumPy arrays whatever the parameters are.
        return array if isinstance(array, np.ndarray | np.generic) else to_numpy(array)

    adapter = Adapter(name, version=version, to_native=to_native, to_numpy=back)
    for family in FAMILIES:
        adapter.include(family.operations)
    adapter.dtypes = {
        operation: tuple(d for d in listed if d in dtypes)
        for operation, listed in adapter.dtypes.items()
    }
    if dialect:
        adapter.dialect = {operation: dict(dialect) for operation in adapter.functions}
    return adapter
