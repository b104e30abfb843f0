"""Making a case that was found smaller, as long as it shows the same: fewer tensors, elements and digits."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from conformance.cases import Case
from conformance.formats import FLOATS, name_of
from conformance.fuzz_domain import lists
from conformance.fuzz_edits import copied, slots
from conformance.operation import leaves, sizes


def reduced(case: Case, shows: Callable[[Case], bool], defaults: Mapping[str, Any]) -> Case:
    """Return a case in which nothing can be left out or made simpler without losing what it shows."""
    while True:
        for simpler in _simpler(case, defaults):
            if shows(simpler):
                case = simpler
                break
        else:
            return case


def weight(case: Case) -> tuple[int, int]:
    """Return how large a case is: its elements, and the digits that they take."""
    digits = 0
    for _, leaf in leaves(case.inputs):
        if isinstance(leaf, np.ndarray) and name_of(leaf.dtype) in FLOATS:
            digits += sum(_digits(float(x)) for x in leaf.astype(np.float64).ravel())
    return sizes(case.inputs), digits + sum(len(repr(value)) for value in case.params.values())


def _digits(value: float) -> int:
    if value == 0:
        return int(math.copysign(1, value) < 0)
    return len(repr(value)) if math.isfinite(value) else 4


def _simpler(case: Case, defaults: Mapping[str, Any]) -> Iterator[Case]:
    yield from _shorter(case)
    yield from _smaller(case)
    for name, default in defaults.items():
        if default is not None and repr(case.params.get(name, default)) != repr(default):
            yield replace(case, params={**case.params, name: default})
    yield from _rounder(case)


def _again(case: Case) -> Case:
    return replace(case, inputs=copied(case.inputs), params=copy.deepcopy(case.params))


def _shorter(case: Case) -> Iterator[Case]:
    """Yield the case without one entry of its lists: all lists that are as long lose it together."""
    if any(isinstance(leaf, int) for _, leaf in leaves(case.inputs)):
        return
    lengths = {(level, len(entries)) for level, entries in lists(case.inputs) if len(entries) > 1}
    for level, length in sorted(lengths):
        for place in reversed(range(length)):
            less = _again(case)
            for entries in [e for at, e in lists(less.inputs) if (at, len(e)) == (level, length)]:
                del entries[place]
            yield less


def _smaller(case: Case) -> Iterator[Case]:
    extents = {n for slot in slots(case.inputs) for n in slot.tensor.shape if n > 1}
    for before in sorted(extents, reverse=True):
        kept = [[0], list(range(before // 2)), list(range(before // 2, before))]
        kept += [[i for i in range(before) if i != gone] for gone in reversed(range(before))]
        for indices in kept[: 3 + 12]:
            less = _again(case)
            for slot in slots(less.inputs):
                tensor = slot.tensor
                for axis, extent in enumerate(tensor.shape):
                    if extent == before:
                        tensor = np.take(tensor, indices, axis=axis)
                slot.parent[slot.key] = np.ascontiguousarray(tensor)
            yield less


def _rounder(case: Case) -> Iterator[Case]:
    """Yield the case with one element made 0, 1, whole, or of fewer digits."""
    for number, slot in enumerate(slots(case.inputs)):
        if name_of(slot.tensor.dtype) not in FLOATS:
            continue
        values = slot.tensor.astype(np.float64).ravel()
        for place, value in enumerate(values.tolist()):
            for simple in _plainer(value):
                with np.errstate(all="ignore"):
                    stored = np.asarray(simple).astype(slot.tensor.dtype)
                if _digits(float(stored)) < _digits(value):
                    less = _again(case)
                    slots(less.inputs)[number].tensor.reshape(-1)[place] = stored
                    yield less


def _plainer(value: float) -> list[float]:
    if value == 0:
        return [0.0]
    candidates = [0.0, math.copysign(1.0, value)]
    if math.isfinite(value):
        candidates += [float(f"{value:.{digits}g}") for digits in (1, 2, 3)]
        exponent = math.frexp(value)[1]
        candidates += [math.ldexp(round(math.ldexp(value, 4 - exponent)), exponent - 4)]
    return candidates
