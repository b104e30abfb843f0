"""What ``secateurs compress`` says: sizes, files and times as they were measured, and what follows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..compression import Sizes
from ..model_files import has_zstd
from .report import Chart, Report, Series, Table

BATCH, ROUNDS = 256, 15
PAIRS = (
    ("weights masked", "weights masked, dead units removed"),
    ("units masked", "units removed"),
    ("as read", "as read, units removed"),
)
"""A masked model, and the same without what the masks have killed."""


@dataclass(frozen=True)
class Measures:
    """Of one network: its sizes, test accuracy, milliseconds, and the bytes of its files by form."""

    size: Sizes
    accuracy: float
    accuracy_int8: float
    """Of the network that was read back from its file in 8 bits."""
    milliseconds: float
    milliseconds_csr: float
    files: Mapping[str, int]


def report_of(
    folder: Path, found: Mapping[str, Measures], distances: Mapping[str, tuple[float, float, bool]]
) -> Report:
    """Return the report: what each network takes, and where pruning bought something."""
    labels = list(next(iter(found.values())).files)
    memory = Table(
        f"In memory; the time is of {BATCH} images, the best of {ROUNDS} or more",
        (
            "network", "parameters", "not zero", "multiply-adds", "ms dense", "ms CSR", "test accuracy",
            "in 8 bits",
        ),
        ("", ",d", ",d", ",d", ".2f", ".2f", ".2%", ".2%"),
        [
            (
                name, m.size.parameters, m.size.nonzero, m.size.multiply_adds, m.milliseconds,
                m.milliseconds_csr, m.accuracy, m.accuracy_int8,
            )
            for name, m in found.items()
        ],
    )  # fmt: skip
    disk = Table(
        f"Bytes; files are in {folder}",
        ("network", "in memory", *labels),
        ("", *[",d"] * (1 + len(labels))),
        [(name, m.size.bytes, *m.files.values()) for name, m in found.items()],
    )
    numbers: dict[str, Any] = {}
    for name, m in found.items():
        numbers[name] = {**asdict(m.size), "accuracy": m.accuracy, "accuracy_int8": m.accuracy_int8,
                         "milliseconds": m.milliseconds, "milliseconds_csr": m.milliseconds_csr,
                         **m.files}  # fmt: skip
        if name in distances:
            apart, allowed, within = distances[name]
            numbers[name] |= {"apart": apart, "allowed": allowed, "within": within}
    return Report(
        "What pruning buys", notes(found, distances), [memory, disk], charts(found), numbers
    )


def notes(
    found: Mapping[str, Measures], distances: Mapping[str, tuple[float, float, bool]]
) -> list[str]:
    """Say where masks buy nothing, what packing and removal buy, and that outputs stay."""
    base = next(iter(found))
    lines = []
    for masked, taken in PAIRS:
        if masked in found:
            lines.append(_of_mask(masked, found[masked], base, found[base]))
            lines.append(_of_removal(taken, found[taken], base, found[base], distances[taken]))
    lines.append(_of_8_bits(found))
    lines += _doubt(found)
    if math.isnan(found[base].milliseconds_csr):
        lines.append("No times of sparse matrices: SciPy is not installed.")
    if not has_zstd():
        lines.append("No zstd: it needs Python 3.14 or the package zstandard.")
    return lines


def _doubt(found: Mapping[str, Measures]) -> list[str]:
    """Say so where networks with the same work took different times: then the clock tells little."""
    base = next(iter(found.values()))
    same = [
        m.milliseconds
        for m in found.values()
        if abs(m.size.multiply_adds - base.size.multiply_adds) <= 0.02 * base.size.multiply_adds
    ]
    if max(same) <= 1.25 * min(same):
        return []
    return [
        f"The times are uncertain: for the same multiply-adds they are from {min(same):.2f} to {max(same):.2f} "
        "ms. Something else keeps this machine busy; measure again when it rests."
    ]


def _of_mask(name: str, m: Measures, base: str, dense: Measures) -> str:
    zeros = 1 - m.size.nonzero / m.size.parameters
    text = (
        f"{name}: {zeros:.0%} of the numbers are zero, and the mask alone buys nothing: a zero takes the room "
        f"and the multiplication of any number. As many bytes in memory and in the plain file, as many "
        f"multiply-adds"
    )
    if name != base:
        text += (
            f", {_times(m.milliseconds, dense.milliseconds)} the time of {base} for the same work"
        )
    text += (
        f". It pays in a packed file, {m.files['dense, gzip'] / dense.files['dense']:.0%} of the plain one; "
        f"in CSR, where a number that is kept takes 8 bytes instead of 4, the file is "
        f"{m.files['CSR'] / dense.files['dense']:.0%} of it"
    )
    if math.isnan(m.milliseconds_csr):
        return text + "."
    slower = m.milliseconds_csr >= dense.milliseconds
    verdict = "so the zeros cost time" if slower else "so the zeros save time"
    ratio = _times(m.milliseconds_csr, dense.milliseconds)
    return f"{text}, and SciPy's sparse product takes {ratio} the time of {base}, {verdict}."


def _of_8_bits(found: Mapping[str, Measures]) -> str:
    """Say what one byte for a weight saves on top, and what it costs."""
    base, dense = next(iter(found.items()))
    name, least = min(found.items(), key=lambda entry: entry[1].files["int8, gzip"])
    worst = min(m.accuracy_int8 - m.accuracy for m in found.values())
    text = (
        f"8 bits: with one byte for a weight and a scale for each unit the plain file of {base} is "
        f"{dense.files['int8'] / dense.files['dense']:.0%} of the dense one; accuracy changes by "
        f"{100 * worst:+.2f} points at worst. It adds to pruning: the smallest file (8 bits, gzip, of: {name}) "
        f"is {least.files['int8, gzip'] / dense.files['dense']:.0%} of the dense one."
    )
    return text + " It saves room on disk; the products here are of float32 all the same."


def _of_removal(
    name: str, m: Measures, base: str, dense: Measures, distance: tuple[float, float, bool]
) -> str:
    apart, allowed, within = distance
    return (
        f"{name}: {m.size.parameters / dense.size.parameters:.0%} of the parameters, "
        f"{m.size.multiply_adds / dense.size.multiply_adds:.0%} of the multiply-adds, "
        f"{_times(m.milliseconds, dense.milliseconds)} the time of {base}. The outputs are "
        f"{'those' if within else 'NOT those'} of the masked network: at most {apart:.1e} apart, where sums in "
        f"another order may be {allowed:.1e}."
    )


def _times(one: float, other: float) -> str:
    return f"{one / other:.2f} ×"


def charts(found: Mapping[str, Measures]) -> list[Chart]:
    """Return the files' sizes, and the times, network by network."""
    measures = list(found.values())
    names = tuple(found)

    def series(name: str, values: list[float]) -> Series:
        return Series(name, [(float(i), v, math.nan) for i, v in enumerate(values)])

    files = [series(k, [float(m.files[k]) for m in measures]) for k in measures[0].files]
    times = [series("dense product", [m.milliseconds for m in measures])]
    if not math.isnan(measures[0].milliseconds_csr):
        times.append(series("SciPy's CSR", [m.milliseconds_csr for m in measures]))
    return [
        Chart("Files", "network", "bytes", files, log_y=True, names=names),
        Chart(f"Time of {BATCH} images", "network", "milliseconds", times, log_y=True, names=names),
    ]
