"""Several threads for NumPy's fast forms, which by itself uses them in matrix products only.

NumPy lets go of Python's global lock while it computes, so plain threads do, as long as each call
takes some tens of microseconds. How the work is divided never depends on how many threads there are:
the same sums are added in the same order, and the results have the same bits on every machine.
"""

from __future__ import annotations

import contextvars
import os
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, TypeVar

Part = TypeVar("Part")
Result = TypeVar("Result")


def _default() -> int:
    """Return OMP_NUM_THREADS where it is a number, as numerical libraries do, else the cores."""
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    if wanted.isdecimal() and int(wanted) > 0:
        return int(wanted)
    # What the process may use is less than what there is in a container; not every system says.
    usable = getattr(os, "sched_getaffinity", None)
    return len(usable(0)) if usable else os.cpu_count() or 1


THREADS = _default()
"""How many threads the fast forms use, the caller's own among them."""

PARTS = 16
"""Into so many parts work is dealt out, however many threads there are."""


def dealt(count: int, parts: int = PARTS) -> list[slice]:
    """Return the slices that deal ``count`` pieces of work out in order, in at most so many parts."""
    step = -(-count // parts)
    return [slice(start, start + step) for start in range(0, count, step or 1)]


def in_parallel(
    prepare: Callable[[], Callable[[Part], Result]], parts: Sequence[Part]
) -> list[Result]:
    """Return what a function gives for each of the parts, in their order.

    ``prepare`` makes the function, once for each thread: what it allocates is that thread's own.
    """
    threads = min(THREADS, len(parts))
    if threads <= 1:
        function = prepare()
        return [function(part) for part in parts]
    remaining = deque(enumerate(parts))
    results: dict[int, Result] = {}

    def work() -> None:
        function = prepare()
        while True:
            try:
                index, part = remaining.popleft()
            except IndexError:
                return
            results[index] = function(part)

    # NumPy's errstate lives in the context, and so would be lost on the way to another thread.
    submit = _pool(THREADS - 1).submit
    helpers = [submit(contextvars.copy_context().run, work) for _ in range(threads - 1)]
    try:
        work()
    finally:
        # A helper that has not begun is not needed any more: in a forked process it never would.
        failures = [helper.exception() for helper in helpers if not helper.cancel()]
    for failure in failures:
        if failure is not None:
            raise failure
    return [results[index] for index in range(len(parts))]


@cache
def _pool(threads: int) -> Any:
    return ThreadPoolExecutor(threads, thread_name_prefix="refimpl")
