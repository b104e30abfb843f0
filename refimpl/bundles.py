"""Several arrays joined into one, where starting an operation takes longer than the operation.

On a device, and with arrays as small as a small model's on any processor, one operation on one long
array is quicker than one on each. Joining costs a copy; a :class:`Bundle` spares it: a list of
arrays that were cut from longer ones, and that still knows them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from operator import is_
from typing import Any

import array_api_compat

from . import arrays, numpy_forms
from .arrays import Array, DType, Namespace

Part = Callable[[list[Array]], list[Array]]


class Cut:
    """How a list of arrays is joined, one flat array for each dtype, and cut again."""

    def __init__(self, xp: Namespace, given: Sequence[Array]) -> None:
        """Take the shapes and dtypes of a list; no element is looked at."""
        self.xp = xp
        groups: dict[DType, list[int]] = {}
        for place, array in enumerate(given):
            groups.setdefault(array.dtype, []).append(place)
        self.groups = list(groups.values())
        self.sizes: list[int] = []
        self.pieces: list[Any] = [None] * len(given)
        for group in self.groups:
            start = 0
            for place in group:
                shape = given[place].shape
                stop = start + math.prod(shape)
                flat = shape == (stop - start,)
                self.pieces[place] = len(self.sizes), slice(start, stop), None if flat else shape
                start = stop
            self.sizes.append(start)
        self.last_stack: Any = None
        """What :mod:`refimpl.numpy_stacks` has found out of lists that are cut so."""
        self.reshape = numpy_forms.reshape if arrays.is_numpy(xp) else xp.reshape

    def join(self, given: Sequence[Array]) -> list[Array]:
        """Return the flat arrays that hold a list of these shapes; those of a bundle are there already."""
        known = intact(given)
        if known is not None:
            return known.wholes
        return [self._joined(given, group) for group in self.groups]

    def _joined(self, given: Sequence[Array], group: list[int]) -> Array:
        chosen = [given[place] for place in group]
        if arrays.is_numpy(self.xp):
            return numpy_forms.join(chosen)
        return self.xp.concat([self.xp.reshape(array, (-1,)) for array in chosen])

    def part(self, wholes: list[Array]) -> Bundle:
        """Return the list of which these are the flat arrays."""
        reshape = self.reshape
        views = [
            wholes[of][where] if shape is None else reshape(wholes[of][where], shape)
            for of, where, shape in self.pieces
        ]
        return Bundle(views, wholes, self)


class Bundle(list[Array]):
    """A list of arrays that are views of the flat arrays ``wholes``."""

    __slots__ = ("cut", "views", "wholes")

    def __init__(self, views: list[Array], wholes: list[Array], cut: Cut) -> None:
        """Remember the views, so that :func:`intact` can tell whether one was replaced."""
        list.__init__(self, views)
        self.views, self.wholes, self.cut = views, wholes, cut

    def copy(self) -> Bundle:
        """Return another list of the same arrays."""
        return Bundle(self.views, self.wholes, self.cut)

    def __reduce__(self) -> tuple[type[list[Array]], tuple[list[Array]]]:
        """Be copied as a plain list: copies of the arrays are no views of copies of the wholes."""
        return list, (list(self),)


def intact(given: Sequence[Array | None]) -> Bundle | None:
    """Return a bundle of which no entry has been replaced, so that its wholes are still its own."""
    if not isinstance(given, Bundle) or len(given) != len(given.views):
        return None
    return given if all(map(is_, given, given.views)) else None


def cut_of(xp: Namespace, given: Sequence[Array]) -> Cut:
    """Return how a list is cut, or would be."""
    known = intact(given)
    return Cut(xp, given) if known is None else known.cut


def bundled(xp: Namespace, *lists: Sequence[Array]) -> tuple[list[list[Array]], Part]:
    """Return lists of arrays joined, and the function that parts such a list: :meth:`Cut.part`.

    All lists have the shapes of the first, and where its arrays have one dtype those of the others
    do too. The arrays stay as they are where operations on each of them cost no more than one on all.
    """
    already = bundled_already(*lists)
    if already is not None:
        return already
    if len(lists[0]) < 2 or not start_slowly(xp, lists[0]):
        return [list(each) for each in lists], list
    cut = cut_of(xp, lists[0])
    return [cut.join(each) for each in lists], cut.part


def bundled_already(
    *lists: Sequence[Array | None],
) -> tuple[list[list[Array]], Part] | None:
    """Return what :func:`bundled` does if the lists are known to fit, each in one dtype, else None."""
    first = lists[0]
    cut = first.cut if isinstance(first, Bundle) and len(first.wholes) == 1 else None
    wholes = []
    for each in lists:
        known = intact(each)
        if known is None or known.cut is not cut:
            return None
        wholes.append(known.wholes)
    return None if cut is None else (wholes, cut.part)


def start_slowly(xp: Namespace, given: Sequence[Array]) -> bool:
    """Say whether operations on each of the arrays cost more than one on all of them."""
    if arrays.is_numpy(xp):
        return numpy_forms.are_small(given)
    return arrays.FAST_FORMS and array_api_compat.is_cupy_namespace(xp)
