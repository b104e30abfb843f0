"""The conformance suite: specification, oracle, fixtures, runner, judge and reports.

Nothing here imports a framework, an adapter or ``refimpl``: implementations run in processes of their
own and are asked over a line protocol. From a test file, ``conformance.check`` runs the cases of an
operation on a function, and ``conformance.cases`` parametrises a test by them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

# A submodule that is imported for the first time takes the attribute of its name here. The function
# ``cases`` below must come after that, to stay.
import conformance.cases  # noqa: F401

__version__ = "1.0.0"
"""Version of the suite: of the cases and their expectations, written into every fixture file."""


def check(
    operation: Any,
    function: Callable[..., Any],
    arrays: str = "numpy",
    dialect: str | Mapping[str, Any] | None = None,
    cases: Any = None,
    dtypes: Iterable[str] | None = None,
) -> None:
    """Run the cases of an operation on a function: see :func:`conformance.checking.check`."""
    __tracebackhide__ = True
    from conformance import checking

    checking.check(operation, function, arrays, dialect, cases, dtypes)


def cases(pattern: str = "*", case: str = "*") -> Any:
    """Parametrise a pytest test by frozen cases: see :func:`conformance.checking.cases`."""
    from conformance import checking

    return checking.cases(pattern, case)


__all__ = ["__version__", "cases", "check"]
