"""Timing of peers side by side.

The machine is never quiet, and what disturbs it lasts longer than one call. So the peers take turns,
call by call, and a ratio is taken within each turn: what slows a whole turn cancels. Of times and of
ratios the median is reported, with the middle half of them as the spread.

Each peer has a process of its own. In a common one the threads that a library keeps spinning for its
next call take the cores from the other: PyTorch took twice its time beside NumPy's.
"""

from __future__ import annotations

import gc
import statistics
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from refimpl import numpy_memory

Run = Callable[[], Any]

PAUSE = 0.05
"""Seconds between two calls, for threads that still spin to go to sleep."""

AWAKE = 0.15
"""Seconds of the same work before it is timed: after a pause, threads were seen to take turns for a while."""


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


def take_turns(commands: Mapping[str, Sequence[str]], turns: int) -> dict[str, Timing]:
    """Time peers in turns; each command is the arguments after which this package serves one."""
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    started = {name: _start(command) for name, command in commands.items()}
    try:
        for name, process in started.items():
            _ask(name, process)  # made, checked and warm
        for _ in range(turns):
            for name, process in started.items():
                time.sleep(PAUSE)
                assert process.stdin is not None
                print("run", file=process.stdin, flush=True)
                seconds[name].append(float(_ask(name, process)))
    finally:
        for process in started.values():
            process.kill()
            process.communicate()
    return {name: Timing(values) for name, values in seconds.items()}


def _start(command: Sequence[str]) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-m", "benchmarks", *command]
    pipe = subprocess.PIPE
    return subprocess.Popen(arguments, stdin=pipe, stdout=pipe, text=True)


def _ask(name: str, process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        sys.exit(f"{name} ended without an answer")
    return line


def serve(run: Run, calls: int, warm_up: int = 3) -> None:
    """Answer each line with the seconds that a call took, the mean of so many after some that are not timed."""
    for _ in range(warm_up):
        run()
    print("ready", flush=True)
    gc.disable()
    for _ in sys.stdin:
        # What was idle has cold caches and cores that sleep, as no training loop has.
        begin = time.perf_counter()
        while time.perf_counter() - begin < AWAKE:
            run()
        print(_seconds(run, calls), flush=True)
        gc.collect()


def timed(run: Run, turns: int) -> Timing:
    """Time one peer by itself, after a first call."""
    run()
    return Timing([_seconds(run, 1) for _ in range(turns)])


def _seconds(run: Run, calls: int) -> float:
    begin = time.perf_counter()
    for _ in range(calls):
        run()
    return (time.perf_counter() - begin) / calls


def peak_bytes(run: Run) -> int:
    """Return how much memory a call takes at its peak, beyond what it was given.

    Memory that refimpl keeps for its next call counts as that call's, which takes it anew here.
    """
    run()
    numpy_memory.release()
    tracemalloc.start()
    try:
        result = run()
        del result
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
