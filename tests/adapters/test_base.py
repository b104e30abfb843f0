"""What every adapter shares: only answers go to standard output, whatever a library prints."""

from __future__ import annotations

import json
import subprocess
import sys

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
