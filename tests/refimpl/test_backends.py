"""The table of array libraries: is it true of the libraries, is its page current, what feeds on it."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from refimpl.backends import CAPABILITIES, Backend, Unavailable, backend, page

ROOT = Path(__file__).parents[2]


def here(library: str) -> Backend:
    try:
        return backend(library)
    except Unavailable as error:
        pytest.skip(str(error))


def native(library: str, values: Any, dtype: str = "float32") -> Any:
    return here(library).to_device(np.asarray(values, dtype=dtype))


def test_the_page_is_that_of_the_table() -> None:
    written = (ROOT / "docs" / "backends.md").read_text(encoding="utf-8")
    assert written == page(), "run: python -m refimpl.backends docs/backends.md"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("library", CAPABILITIES)
def test_float64_and_int64_are_there_where_the_table_says_so(library: str) -> None:
    for dtype, there in (
        ("float64", CAPABILITIES[library].float64),
        ("int64", CAPABILITIES[library].integers64),
    ):
        kept = str(native(library, [1, 2], dtype).dtype).endswith(dtype)
        assert kept is there


@pytest.mark.parametrize("library", CAPABILITIES)
def test_arrays_can_be_written_to_where_the_table_says_so(library: str) -> None:
    array = native(library, [1.0, 2.0])
    if CAPABILITIES[library].in_place:
        array[:1] = 5.0
        assert backend(library).to_numpy(array).tolist() == [5.0, 2.0]
    else:
        with pytest.raises(TypeError):
            array[:1] = 5.0


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("library", CAPABILITIES)
def test_subnormals_are_flushed_where_the_table_says_so(library: str) -> None:
    has = CAPABILITIES[library]
    if library == "jax" and here("jax") and import_module("jax").default_backend() != "cpu":
        pytest.skip("what the table says of JAX was measured on its CPU device")
    for dtype, small, says in (
        ("float32", 1e-40, ("flushed", "float32 flushed")),
        ("float64", 1e-310, ("flushed",)),
    ):
        if dtype in has.dtypes:
            product = native(library, [small], dtype) * native(library, [0.5], dtype)
            flushed = float(backend(library).to_numpy(product)[0]) == 0.0
            assert flushed is (has.subnormals in says)


@pytest.mark.parametrize("library", CAPABILITIES)
def test_adapters_ask_what_the_table_has(library: str) -> None:
    here(library)
    name = {"numpy": "refimpl", "torch": "refimpl_torch"}.get(library, library)
    adapter = import_module(f"adapters.{name}").adapter
    asked = set(CAPABILITIES[library].dtypes)
    assert set(adapter.dtypes["clip.global_norm"]) == asked
    assert adapter.dialect.get("clip.norm", {}) == CAPABILITIES[library].dialect


NO_DEVICE = """
class _Runtime:
    class CUDARuntimeError(RuntimeError):
        pass

    def getDeviceCount(self):
        raise self.CUDARuntimeError("cudaErrorInsufficientDriver:\\nthe driver is too old")

class cuda:
    runtime = _Runtime()

__version__ = "14.2.0"
"""
COMMANDS = {
    "train": [sys.executable, "-m", "refimpl", "train", "--backend", "cupy"],
    "verify": [sys.executable, "-m", "secateurs", "verify", "cupy", "--operation", "clip.value"],
    "serve": [sys.executable, "-m", "adapters", "cupy"],
}


def before_all_else(folder: Path) -> str:
    paths = [str(folder), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.pathsep.join(paths)


@pytest.mark.parametrize("command", COMMANDS)
def test_cupy_without_a_device_is_one_line_and_3(command: str, tmp_path: Path) -> None:
    (tmp_path / "cupy.py").write_text(NO_DEVICE)
    environment = {**os.environ, "PYTHONPATH": before_all_else(tmp_path)}
    done = subprocess.run(COMMANDS[command], capture_output=True, text=True, env=environment)
    assert done.returncode == 3, done.stderr
    said = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    assert len(said) == 1, said
    assert "there is no CUDA device" in said[0]


@pytest.mark.parametrize("command", COMMANDS)
def test_cupy_that_is_not_installed_is_one_line_and_3(command: str, tmp_path: Path) -> None:
    message = "No module named 'cupy'"
    (tmp_path / "cupy.py").write_text(f'raise ModuleNotFoundError("{message}", name="cupy")')
    environment = {**os.environ, "PYTHONPATH": before_all_else(tmp_path)}
    done = subprocess.run(COMMANDS[command], capture_output=True, text=True, env=environment)
    assert done.returncode == 3, done.stderr
    said = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    assert len(said) == 1, said
    assert "cupy" in said[0]
    assert "not installed" in said[0]
