"""Run the benchmarks and write benchmarks/RESULTS.md."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path

RESULTS = Path(__file__).parent / "RESULTS.md"

HEADER = """# Results

`make bench` wrote this page: {machine}.

The machine is shared and not quiet. Each peer has a process of its own, and they take turns, call by call,
each after 0.15 s of the same work that is not timed, as in a training loop. Times are medians, and a ratio is
the median of the ratios within the turns (in brackets: the middle half of them). Below 1 refimpl is faster.
PyTorch runs in eager mode on the CPU, refimpl on NumPy, float32 both, with as many threads each. NumPy itself
uses them in large matrix products only, refimpl for whatever is worth dividing (`refimpl/numpy_threads.py`).
Before it is timed, each pair is checked to do the same work.
"""

LOAD = "Programs that wanted a core, on average: {before:.1f} when this began, {after:.1f} when it ended."


NAMES = ("cnn", "mlp", "clip", "prune", "growth")


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "names", nargs="*", help=f"of {', '.join(NAMES)}; if any, no file is written"
    )
    parser.add_argument("--threads", type=int, help="of each library; default: all cores, then one")
    parser.add_argument("--largest", type=float, default=1e8, help="parameters of the last point")
    parser.add_argument("--part", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(NAMES):
        parser.error(f"unknown benchmark: {', '.join(sorted(unknown))}")
    if arguments.part or arguments.serve:
        _run(arguments)
        return
    cores = os.cpu_count() or 1
    names = arguments.names or list(NAMES)
    compared = [name for name in names if name != "growth"]
    before = _load()
    sections = [HEADER.format(machine=_machine(cores))]
    for threads in [arguments.threads] if arguments.threads else sorted({cores, 1}, reverse=True):
        if compared:
            heading = f"## Beside PyTorch, {threads} thread{'s' * (threads > 1)}"
            sections.append(f"{heading}\n\n{_part(compared, threads, arguments.largest)}")
    if "growth" in names:
        sections.append(f"## Growth, 1 thread\n\n{_part(['growth'], 1, arguments.largest)}")
    after = _load()
    if before is not None and after is not None:
        sections.insert(1, LOAD.format(before=before, after=after) + "\n")
    page = "\n".join(sections)
    if not arguments.names:
        RESULTS.write_text(page, encoding="utf-8")
    print(page, end="")


def _part(names: list[str], threads: int, largest: float) -> str:
    """Run a part in a process of its own: thread counts are read when the libraries load."""
    environment = dict(os.environ)
    for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        environment[variable] = str(threads)
    # They force kernels that need not fit the machine.
    for variable in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
        environment.pop(variable, None)
    options = ["--part", "--threads", str(threads), "--largest", str(largest)]
    command = [sys.executable, "-m", "benchmarks", *names, *options]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(done.returncode)
    return done.stdout


def _run(arguments: argparse.Namespace) -> None:
    try:
        import torch
    except ImportError:
        sys.exit("the benchmarks compare with PyTorch: pip install 'secateurs[torch]'")
    from . import report

    torch.set_num_threads(arguments.threads)
    if arguments.serve:
        report.serve(*arguments.serve)
    elif arguments.names == ["growth"]:
        print("\n".join(report.growth(arguments.largest)))
    else:
        print("\n".join(report.comparisons(arguments.names, arguments.threads)))


def _load() -> float | None:
    """Return how many programs wanted a core, averaged over five minutes, where the system tells."""
    return os.getloadavg()[1] if hasattr(os, "getloadavg") else None


def _machine(cores: int) -> str:
    versions = ", ".join(
        f"{name} {importlib.metadata.version(name)}"
        for name in ("numpy", "torch", "array-api-compat")
    )
    system = f"{platform.system()} {platform.machine()}, CPython {platform.python_version()}"
    return f"{_processor()}, {cores} core{'s' * (cores > 1)}; {system}; {versions}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or "an unnamed processor"
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    width = "AVX-512" if "avx512f" in flags else "AVX2" if "avx2" in flags else "no AVX2"
    return f"{names[0] if names else platform.machine()} ({width})"


main()
