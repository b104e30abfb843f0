"""Several arrays joined into one, where starting an operation takes longer than the operation.

On a device, and with arrays as small as a small model's on any processor, one operation on one long
array is quicker than one on each. Joining costs a copy; a :class:`Bundle` spares it: a list of
arrays that were cut from longer ones, and that still knows them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
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
        self.cutters, self.sizes = [], []
        for group in self.groups:
            shapes = [tuple(given[place].shape) for place in group]
            self.cutters.append(cutter(xp, shapes))
            self.sizes.append(sum([math.prod(shape) for shape in shapes]))
        self.last_stack: Any = None
        """What :mod:`refimpl.numpy_stacks` has found out of lists that are cut so."""

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
        if len(wholes) == 1:
            return Bundle(self.cutters[0](wholes[0]), wholes, self)
        views: list[Any] = [None] * sum([len(group) for group in self.groups])
        for group, cut, whole in zip(self.groups, self.cutters, wholes, strict=True):
            for place, view in zip(group, cut(whole), strict=True):
                views[place] = view
        return Bundle(views, wholes, self)


def cutter(xp: Namespace, shapes: Sequence[tuple[int, ...]]) -> Callable[[Array], list[Array]]:
    """Return a function that cuts a flat array into views of these shapes, which lie one after the other."""
    if arrays.is_numpy(xp):
        return numpy_forms.cutter(shapes)
    stops = list(accumulate([math.prod(shape) for shape in shapes]))
    pieces = [slice(*ends) for ends in pairwise([0, *stops])]
    pairs = list(zip(pieces, shapes, strict=True))
    return lambda whole: [xp.reshape(whole[piece], shape) for piece, shape in pairs]


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
