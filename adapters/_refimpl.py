"""The canonical implementation on the arrays of one library; ``adapters/<library>.py`` names which."""

from __future__ import annotations

from collections.abc import Callable
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
from adapters.base import Adapter
from refimpl.backends import CAPABILITIES

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
    library: str,
) -> Adapter:
    """Return refimpl as a participant that is given, and must give back, arrays of one library.

    ``library`` is its name in :data:`refimpl.backends.CAPABILITIES`: operations are listed in the formats
    that it has, and declare what its arithmetic does everywhere (``subnormals=flush``).
    """
    has = CAPABILITIES[library]

    def back(array: Any) -> Any:
        # Schedules are NumPy arrays whatever the parameters are.
        return array if isinstance(array, np.ndarray | np.generic) else to_numpy(array)

    adapter = Adapter(name, version=version, to_native=to_native, to_numpy=back)
    for family in FAMILIES:
        adapter.include(family.operations)
    adapter.dtypes = {
        operation: tuple(d for d in listed if d in has.dtypes)
        for operation, listed in adapter.dtypes.items()
    }
    if has.dialect:
        adapter.dialect = {operation: dict(has.dialect) for operation in adapter.functions}
    return adapter
