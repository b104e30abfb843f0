"""One module per operation; each defines ``OPERATION``."""

from __future__ import annotations

import importlib
import pkgutil
from fnmatch import fnmatchcase
from functools import cache

from conformance.operation import Operation


@cache
def load(operation_id: str) -> Operation:
    """Return an operation by its id; KeyError if there is none."""
    try:
        module = importlib.import_module(f"{__name__}.{operation_id.replace('.', '_')}")
    except ModuleNotFoundError as error:
        raise KeyError(operation_id) from error
    operation: Operation = module.OPERATION
    return operation


@cache
def names() -> tuple[str, ...]:
    """Return the ids of all operations, sorted by family and name."""
    modules = (m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))
    return tuple(sorted(name.replace("_", ".", 1) for name in modules))


def matching(pattern: str) -> list[str]:
    """Return the ids that a shell pattern matches (``clip.*``); an exact id matches itself."""
    return [name for name in names() if fnmatchcase(name, pattern)]
