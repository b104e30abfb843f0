"""What every adapter shares: only answers go to standard output, whatever a library prints."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import adapters
from conformance import participants

CHATTY = """
import os
from adapters.base import Adapter
adapter = Adapter("chatty", version="1", to_native=lambda array: array, to_numpy=lambda array: array)

@adapter.operation("layer.relu")
def layer_relu(x, dy):
    print("said in Python")
    os.write(1, b"said beneath it")
    return {"y": x, "dx": dy}

adapter.serve()
"""


def test_what_a_library_prints_goes_to_standard_error() -> None:
    one = {"dtype": "float32", "shape": [1], "bits": "40400000"}
    request = {
        "cmd": "run", "id": 7, "operation": "layer.relu", "inputs": {"x": one, "dy": one}, "params": {},
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", CHATTY], input=json.dumps(request) + '\n{"cmd": "stop"}\n',
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(done.stdout) == {"id": 7, "outputs": {"y": one, "dx": one}}
    assert "said in Python" in done.stderr
    assert "said beneath it" in done.stderr


def test_no_adapter_imports_another() -> None:
    modules = set(participants.adapters().values())
    found = []
    for path in Path(str(adapters.__file__)).parent.glob("*.py"):
        own = f"adapters.{path.stem}"
        for node in ast.walk(ast.parse(path.read_bytes())):
            names = []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            found += [(own, name) for name in names if name in modules - {own}]
    assert found == []
