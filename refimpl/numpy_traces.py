"""A formula for arrays as a list of NumPy calls, each of which writes where its result belongs.

Evaluated by Python, every operation of a formula makes a new array, and the results are copied to
where they stay. So the formula is evaluated once, for single elements that note which operation made
each of them; the operations are then repeated for one block of the arrays after the other, with as few
arrays between them as it takes. The same operations on the same numbers have the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import array_api_compat
import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from .numpy_memory import empty
from .numpy_products import copy

Place = tuple[str, int]
"""``given``, ``result`` or ``between``, and the number of such an array."""


class Untraceable(Exception):
    """The formula asks for more than elementwise operations of NumPy."""


class _Element(NDArrayOperatorsMixin):
    """One element of an array: a value, and the operation that made it, None for one that was given."""

    def __init__(self, value: Any, trace: list[_Element], made_by: Any = None) -> None:
        self.value, self.trace, self.made_by = value, trace, made_by
        self.dtype = value.dtype

    def __array_ufunc__(self, ufunc: Any, method: str, *operands: Any, **options: Any) -> _Element:
        """Note an operation, and make it."""
        arrays = [x for x in operands if isinstance(x, np.ndarray) and x.ndim]
        if method != "__call__" or options or ufunc.nout != 1 or arrays:
            raise Untraceable(f"{ufunc.__name__} {method}")
        values = [x.value if isinstance(x, _Element) else x for x in operands]
        made = _Element(ufunc(*values), self.trace, (ufunc, operands))
        self.trace.append(made)
        return made

    def __array_namespace__(self, api_version: str | None = None) -> Any:
        """Return the namespace of NumPy's arrays."""
        return array_api_compat.array_namespace(self.value, api_version=api_version)

    def __array_function__(self, function: Any, *_: Any) -> Any:
        """Refuse what is not one operation for each element."""
        raise Untraceable(function.__name__)

    def __getattr__(self, name: str) -> Any:
        """Refuse what an element does not know."""
        raise (AttributeError if name.startswith("__") else Untraceable)(name)

    def _refuse(self, *_: Any, **__: Any) -> Any:
        """Refuse to be an array or a number: what it is told need not be true of the other elements."""
        raise Untraceable("a value")

    __array__ = __bool__ = __float__ = __int__ = __index__ = _refuse


class Trace(NamedTuple):
    """The operations of a formula.

    Attributes:
        calls: a function of NumPy, its operands and where its result goes, in order; operands are
            places, or constants.
        results: the dtypes of the results.
        between: the dtypes of the arrays between.
    """

    calls: list[tuple[Any, list[Any], Place]]
    results: list[Any]
    between: list[Any]

    def prepare(self, size: int) -> Callable[..., None]:
        """Return what writes a block's results: ``write(results, *arrays)``, of at most so many elements."""
        between = [empty((size,), dtype) for dtype in self.between]

        def write(results: Sequence[Any], *given: Any) -> None:
            arrays = {"given": given, "result": results}
            arrays["between"] = [array[: len(given[0])] for array in between]
            for function, operands, (kind, number) in self.calls:
                values = [arrays[x[0]][x[1]] if type(x) is tuple else x for x in operands]
                function(*values, out=arrays[kind][number])

        return write


def traced(function: Callable[..., Sequence[Any]], elements: Sequence[Any]) -> Trace | None:
    """Return the operations of an elementwise function of arrays; None if it does anything else.

    ``elements`` are arrays of one element each, of the dtypes of those that will be given.
    """
    trace: list[_Element] = []
    given = [_Element(element, trace) for element in elements]
    try:
        results = list(function(*given))
        if all(isinstance(result, _Element) for result in results):
            return _written_down(trace, given, results)
    except Untraceable:
        pass
    finally:
        # The elements know the list, and it them: as long as they do, the arrays stay in memory.
        trace.clear()
    return None


def _written_down(
    trace: Sequence[_Element], given: Sequence[_Element], results: Sequence[_Element]
) -> Trace:
    """Return the operations with places for what they make."""
    places: dict[int, Place] = {id(x): ("given", i) for i, x in enumerate(given)}
    own = {id(x): ("result", i) for i, x in reversed(list(enumerate(results))) if x.made_by}
    last = {id(x): step for step, made in enumerate(trace) for x in made.made_by[1]}
    between: list[Any] = []
    free: list[int] = []
    calls: list[tuple[Any, list[Any], Place]] = []
    for step, made in enumerate(trace):
        ufunc, operands = made.made_by
        values = [places[id(x)] if isinstance(x, _Element) else x for x in operands]
        # What is read here for the last time may be written over: each element by its own result.
        ended = {places[id(x)] for x in operands if isinstance(x, _Element) and last[id(x)] == step}
        free += sorted(number for kind, number in ended if kind == "between")
        place = own.get(id(made))
        if place is None:
            number = next((i for i in free if between[i] == made.dtype), len(between))
            if number == len(between):
                between.append(made.dtype)
            else:
                free.remove(number)
            place = ("between", number)
            if id(made) not in last:
                free.append(number)
        places[id(made)] = place
        calls.append((ufunc, values, place))
    for number, result in enumerate(results):
        if places[id(result)] != ("result", number):
            calls.append((copy, [places[id(result)]], ("result", number)))
    return Trace(calls, [result.dtype for result in results], between)
