"""Run the benchmarks and write benchmarks/RESULTS.md."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import sys
from pathlib import Path

RESULTS = Path(__file__).parent / "RESULTS.md"


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of each library")
    parser.add_argument("--largest", type=float, default=1e8, help="parameters of the last point")
    parser.add_argument("--turns", type=float, default=1.0, help="multiplies the repetitions")
    parser.add_argument(
        "--only", help="a part of the names of the benchmarks to run; writes no file"
    )
    arguments = parser.parse_args()

    # Both are read when the libraries load; the other two force kernels that do not fit the machine.
    for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = str(arguments.threads)
    for variable in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
        os.environ.pop(variable, None)
    try:
        import torch
    except ImportError:
        sys.exit("the benchmarks compare with PyTorch: pip install 'secateurs[torch]'")
    from . import report

    torch.set_num_threads(arguments.threads)
    text = report.report(
        _machine(arguments.threads), arguments.turns, arguments.largest, arguments.only
    )
    if arguments.only is None:
        RESULTS.write_text(text, encoding="utf-8")
    print(text)


def _machine(threads: int) -> str:
    versions = ", ".join(
        f"{name} {importlib.metadata.version(name)}"
        for name in ("numpy", "torch", "array-api-compat")
    )
    system = f"{platform.system()} {platform.machine()}, CPython {platform.python_version()}"
    return (
        f"{_processor()}, {os.cpu_count()} cores seen; {threads} threads for each library; "
        f"{system}; {versions}"
    )


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
