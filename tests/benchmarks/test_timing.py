"""What the benchmarks say of memory."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np

from refimpl.numpy_memory import empty

TIMING = Path(__file__).parents[2] / "benchmarks" / "timing.py"


def timing() -> ModuleType:
    spec = importlib.util.spec_from_file_location("timing_of_benchmarks", TIMING)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_memory_that_is_kept_for_the_next_call_counts() -> None:
    size = 300 * 400 * 4
    assert size <= timing().peak_bytes(lambda: empty((300, 400), np.float32)) < 1.5 * size
