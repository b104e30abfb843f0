"""The CUDA benchmark without CUDA: one line and exit code 3; how it times, and what is said of memory."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np

from refimpl.numpy_memory import empty

ROOT = Path(__file__).parents[2]


def benchmark(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where its dataclasses look for it
    spec.loader.exec_module(module)
    return module


def test_without_a_device_it_says_so_in_one_line() -> None:
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "benchmarks.cuda"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 3
    assert done.stdout == ""
    assert done.stderr.startswith("no CUDA benchmark: ")
    assert done.stderr.count("\n") == 1


def test_peers_take_turns_and_every_call_is_waited_for() -> None:
    events: list[str] = []
    peers = {name: lambda name=name: events.append(name) for name in ("refimpl", "torch")}
    seconds = benchmark("cuda").take_turns(peers, lambda: events.append("wait"), turns=2)
    assert {name: len(values) for name, values in seconds.items()} == {"refimpl": 2, "torch": 2}
    assert events == ["wait", "refimpl", "wait", "wait", "torch", "wait"] * 5


def test_memory_that_is_kept_for_the_next_call_counts() -> None:
    size = 300 * 400 * 4
    peak = benchmark("timing").peak_bytes(lambda: empty((300, 400), np.float32))
    assert size <= peak < 1.5 * size
