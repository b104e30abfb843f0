"""The tables of results, in Markdown."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from . import tensors, training
from .timing import Run, Timing, interleaved, peak_bytes


@dataclass(frozen=True)
class Benchmark:
    """One comparison: what is done, by whom, and how the time of refimpl should relate to torch's."""

    name: str
    peers: Callable[[], dict[str, Run]]
    goal: float
    turns: int
    calls: int = 1


BENCHMARKS = [
    Benchmark(
        "CNN training step: batch 64 of 28×28×1, conv 3×3 to 32, ReLU, conv 3×3 to 64, ReLU, average "
        "pool 2×2, dense 128, ReLU, dense 10",
        lambda: training.peers(training.CNN, (64, 28, 28, 1)),
        goal=1.0,
        turns=40,
    ),
    Benchmark(
        "MLP training step: 32-64-32-10, batch 32",
        lambda: training.peers(training.MLP, (32, 32)),
        goal=0.3,
        turns=60,
        calls=20,
    ),
    Benchmark(
        "Global-norm clip: 25 million float32 in 100 tensors",
        tensors.clip_peers,
        goal=1.0,
        turns=40,
    ),
    Benchmark(
        "Global magnitude pruning to 80 %: 10 million float32 in 10 tensors",
        tensors.prune_peers,
        goal=1 / 30,
        turns=tensors.PRUNE_TURNS - 2,
    ),
]


def comparisons(factor: float, only: str | None) -> list[str]:
    """Time the peers of each benchmark; return the table."""
    lines = ["| what | who | median | refimpl / it | goal |", "| --- | --- | ---: | ---: | ---: |"]
    for benchmark in BENCHMARKS:
        if only is not None and only.lower() not in benchmark.name.lower():
            continue
        turns = max(4, round(benchmark.turns * factor))
        timings = interleaved(benchmark.peers(), turns, calls=benchmark.calls)
        ours = timings["refimpl"]
        for who, timing in timings.items():
            what = benchmark.name if who == "refimpl" else ""
            goal = f"≤ {_number(benchmark.goal)}" if who == "torch" else ""
            lines.append(f"| {what} | {who} | {_time(timing)} | {_ratio(ours, timing)} | {goal} |")
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
        timings = interleaved(runs, turns=9 if size <= 10**7 else 3, warm_up=1)
        cells = []
        for name, run in runs.items():
            seconds[name].append(timings[name].median)
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


def _time(timing: Timing) -> str:
    seconds = timing.median
    return f"{seconds * 1e3:.1f} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.0f} µs"


def _number(value: float) -> str:
    return f"{value:.2f}" if value >= 0.1 else f"1/{1 / value:.0f}"
