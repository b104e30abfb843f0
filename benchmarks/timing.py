"""Timing of peers side by side.

The machine is never quiet, and what disturbs it lasts longer than one call. So the peers take turns,
call by call, and a ratio is taken within each turn: what slows a whole turn cancels. Of times and of
ratios the median is reported, with the middle half of them as the spread.
"""

from __future__ import annotations

import gc
import statistics
import time
import tracemalloc
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Run = Callable[[], Any]


@dataclass(frozen=True)
class Timing:
    """Seconds of each call, in the order of the turns."""

    seconds: list[float]

    @property
    def median(self) -> float:
        """The median of the calls, in seconds."""
        return statistics.median(self.seconds)

    def over(self, peer: Timing) -> tuple[float, float, float]:
        """Return the median and the quartiles of the ratio to a peer, turn by turn."""
        ratios = [a / b for a, b in zip(self.seconds, peer.seconds, strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
        return middle, low, high


def interleaved(
    peers: Mapping[str, Run], turns: int, *, calls: int = 1, warm_up: int = 2
) -> dict[str, Timing]:
    """Time each peer once a turn, ``calls`` calls at a time; the first turns are thrown away."""
    seconds: dict[str, list[float]] = {name: [] for name in peers}
    collecting = gc.isenabled()
    gc.disable()
    try:
        for _ in range(warm_up + turns):
            for name, run in peers.items():
                begin = time.perf_counter()
                for _ in range(calls):
                    run()
                seconds[name].append((time.perf_counter() - begin) / calls)
            gc.collect()
    finally:
        if collecting:
            gc.enable()
    return {name: Timing(values[warm_up:]) for name, values in seconds.items()}


def peak_bytes(run: Run) -> int:
    """Return how much memory a call takes at its peak, beyond what it was given."""
    run()
    tracemalloc.start()
    try:
        result = run()
        del result
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
