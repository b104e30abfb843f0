"""Keras's adapter on PyTorch: what it passes on and what it declines; each backend needs its own process."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from conformance.formats import decode, encode

pytest.importorskip("keras")
pytest.importorskip("torch")


def test_an_optimiser_clips_steps_and_declines() -> None:
    zero_momentum = {"momentum": 0.0, "dampening": 0.0, "nesterov": False, "weight_decay": 0.5}
    questions = [
        ("clip.global_norm", {"grads": [None, encode(np.array([3.0, -4.0]))]}, {"max_norm": 2.5, "ord": 2}),
        ("clip.value", {"grads": [encode(np.array([-3.0, 0.5]))]}, {"min": -1.0, "max": 1.0}),
        ("optim.sgd",
         {"params": [encode(np.array([2.0]))], "grads": [[encode(np.array([4.0]))]]},
         {"lr": 0.25, **zero_momentum}),
        ("clip.value", {"grads": [encode(np.array([1.0]))]}, {"min": -1.0, "max": 2.0}),
    ]  # fmt: skip
    lines: list[dict[str, Any]] = [{"cmd": "start", "protocol": 1}]
    for number, (operation, inputs, params) in enumerate(questions):
        asked = {"operation": operation, "inputs": inputs, "params": params}
        lines.append({"cmd": "run", "id": str(number), **asked})
    lines.append({"cmd": "stop"})
    code = "from adapters.keras_torch import adapter; adapter.serve()"
    done = subprocess.run(
        [sys.executable, "-c", code], input="".join(json.dumps(line) + "\n" for line in lines),
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    start, globally, by_value, stepped, lopsided = map(json.loads, done.stdout.splitlines())
    assert start["implementation"]["name"] == "keras_torch"
    assert "+torch." in start["implementation"]["version"]
    grads = globally["outputs"]["grads"]
    assert grads[0] is None
    np.testing.assert_allclose(decode(grads[1]), [1.5, -2.0], rtol=1e-6)
    np.testing.assert_array_equal(decode(by_value["outputs"]["grads"][0]), [-1.0, 0.5])
    # decoupled: 2·(1 - 0.25·0.5) - 0.25·4
    np.testing.assert_array_equal(decode(stepped["outputs"]["params"][0][0]), [0.75])
    assert "clipvalue" in lopsided["unsupported"]["reason"]
