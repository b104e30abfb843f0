"""The tables of results, in Markdown."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from . import tensors, timing, training
from .timing import Run, Timing, peak_bytes


@dataclass(frozen=True)
class Benchmark:
    """One comparison: what is done, by whom, and how the time of refimpl should relate to torch's."""

    what: str
    peers: Callable[[], dict[str, Callable[[], Run]]]
    check: Callable[[], None]
    goal: float
    turns: int
    calls: int = 1


BENCHMARKS = {
    "cnn": Benchmark(
        "CNN training step: batch 64 of 28×28×1, conv 3×3 to 32, ReLU, conv 3×3 to 64, ReLU, average "
        "pool 2×2, dense 128, ReLU, dense 10",
        partial(training.peers, "cnn"),
        partial(training.check, "cnn"),
        goal=1.0,
        turns=40,
        calls=3,
    ),
    "mlp": Benchmark(
        "MLP training step: 32-64-32-10, batch 32",
        partial(training.peers, "mlp"),
        partial(training.check, "mlp"),
        goal=0.3,
        turns=40,
        calls=200,
    ),
    "clip": Benchmark(
        "Global-norm clip: 25 million float32 in 100 tensors",
        tensors.clip_peers,
        tensors.check_clip,
        goal=1.0,
        turns=25,
        calls=3,
    ),
    "prune": Benchmark(
        "Global magnitude pruning to 80 %: 10 million float32 in 10 tensors",
        tensors.prune_peers,
        tensors.check_prune,
        goal=1 / 30,
        turns=tensors.PRUNE_TURNS,
    ),
}


def serve(name: str, peer: str) -> None:
    """Be one peer of a benchmark, until the input ends."""
    benchmark = BENCHMARKS[name]
    timing.serve(benchmark.peers()[peer](), benchmark.calls)


def comparisons(names: Sequence[str], threads: int) -> list[str]:
    """Time the peers of benchmarks; return the table."""
    lines = ["| what | who | median | refimpl / it | goal |", "| --- | --- | ---: | ---: | ---: |"]
    for name in names:
        benchmark = BENCHMARKS[name]
        benchmark.check()
        options = ["--threads", str(threads), "--serve", name]
        commands = {peer: [*options, peer] for peer in benchmark.peers()}
        timings = timing.take_turns(commands, benchmark.turns)
        for who, seconds in timings.items():
            what = benchmark.what if who == "refimpl" else ""
            goal = f"≤ {_number(benchmark.goal)}" if who == "torch" else ""
            ratio = _ratio(timings["refimpl"], seconds)
            lines.append(f"| {what} | {who} | {_time(seconds)} | {ratio} | {goal} |")
    return lines


def growth(largest: float) -> list[str]:
    """Time and weigh refimpl for 10^5 parameters and more; return the table."""
    sizes = [10**power for power in range(5, 9) if 10**power <= largest]
    names = list(tensors.growing(10))
    lines = [
        "Each cell: nanoseconds and peak bytes per parameter, beyond the arrays that are given (float32,",
        "10 tensors). The last line is the exponent e of time ~ parameters^e over the last decade.",
        "",
        "| parameters | " + " | ".join(names) + " |",
        "| ---: |" + " ---: |" * len(names),
    ]
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for size in sizes:
        runs = tensors.growing(size)
        turns = 9 if size <= 10**7 else 3
        cells = []
        for name, run in runs.items():
            seconds[name].append(timing.timed(run, turns).median)
            each = seconds[name][-1] / size * 1e9
            cells.append(f"{each:.2f} ns, {peak_bytes(run) / size:.1f} B")
        lines.append(f"| 10^{round(math.log10(size))} | " + " | ".join(cells) + " |")
    exponents = [math.log10(values[-1] / values[-2]) for values in seconds.values()]
    lines.append("| e | " + " | ".join(f"{e:.2f}" for e in exponents) + " |")
    return [*lines, "", *_curve(sizes, seconds)]


def _curve(sizes: list[int], seconds: dict[str, list[float]]) -> list[str]:
    """Return the times as bars, each decade of time 8 characters long from a microsecond on."""
    lines = ["```text", "time, from 1 µs on, 8 characters for each factor of 10"]
    for name, values in seconds.items():
        lines.append(name)
        for size, value in zip(sizes, values, strict=True):
            bar = "█" * max(1, round(8 * math.log10(value * 1e6)))
            lines.append(f"  10^{round(math.log10(size))}  {bar} {value * 1e3:.2f} ms")
    return [*lines, "```"]


def _ratio(ours: Timing, theirs: Timing) -> str:
    if ours is theirs:
        return ""
    middle, low, high = (_number(value) for value in ours.over(theirs))
    return f"{middle} ({low} to {high})"


def _time(taken: Timing) -> str:
    seconds = taken.median
    return f"{seconds * 1e3:.1f} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.0f} µs"


def _number(value: float) -> str:
    return f"{value:.2f}" if value >= 0.1 else f"1/{1 / value:.0f}"
