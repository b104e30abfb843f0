"""The canonical implementation on Dask arrays: lazy, in chunks, computed when they are read."""

from __future__ import annotations

from typing import Any

import dask
import dask.array
import numpy as np

from adapters import _refimpl_training
from adapters._refimpl import canonical
from adapters.base import Function


def to_dask(array: np.ndarray[Any, Any]) -> Any:
    """Return a Dask array in two chunks along its first axis, where there is something to cut.

    Dask reshapes neither an empty array of several chunks nor, in general, chunks along other axes
    (NotImplementedError).
    """
    chunks: Any = -1
    if array.size and array.ndim:
        chunks = (-(-array.shape[0] // 2), *array.shape[1:])
    return dask.array.from_array(array, chunks=chunks)


def at_once(function: Function) -> Function:
    """Return a function whose outputs are computed together.

    Each by itself would compute again what they share: the last of an optimiser's steps all the steps
    before it.
    """

    def computed(*args: Any, **kwargs: Any) -> Any:
        (outputs,) = dask.compute(function(*args, **kwargs), optimize_graph=False)
        return outputs

    return computed


def persisted(state: Any) -> Any:
    """Compute a training state, so that a step that looks at a value does not repeat those before it."""
    (computed,) = dask.persist(state, optimize_graph=False)
    return computed


_refimpl_training.after_step = persisted
adapter = canonical("dask", dask.__version__, to_dask, np.asarray, "dask")
adapter.functions = {name: at_once(function) for name, function in adapter.functions.items()}
