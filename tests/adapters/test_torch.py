"""The PyTorch adapter says what it is, and declares the dialects that the operations name after it."""

from __future__ import annotations

import fnmatch
import importlib.metadata
import json

import numpy as np
import pytest

pytest.importorskip("torch")

from adapters.torch import adapter
from conformance import expected, fixtures, operations
from conformance.formats import encode

SHARED = sorted(set(operations.names()) & set(adapter.functions))


def test_start_names_the_library_and_its_operations() -> None:
    answer = adapter.start()
    assert answer["protocol"] == 1
    implementation = answer["implementation"]
    assert implementation["name"] == "torch"
    assert implementation["version"] == importlib.metadata.version("torch")
    assert implementation["operations"]["clip.norm"]["dtypes"] == [
        "float64", "float32", "float16", "bfloat16", "complex64", "complex128",
    ]  # fmt: skip


@pytest.mark.parametrize("name", SHARED)
def test_the_declared_dialect_is_the_one_the_operation_names(name: str) -> None:
    operation = operations.load(name)
    assert operation.dialects.get("torch", {}) == adapter.dialect.get(name, {})


def test_a_gradient_that_is_clipped_in_place_is_reported() -> None:
    request = {
        "operation": "clip.global_norm",
        "inputs": {"grads": [encode(np.array([6.0, 8.0]))]},
        "params": {"max_norm": 1.0, "ord": 2},
    }
    answer = adapter.run(request)
    assert answer["mutated"] == ["grads"]
    assert "mutated" not in adapter.run(request | {"params": {"max_norm": 16.0, "ord": 2}})


def test_what_pytorch_lacks_is_unsupported_with_a_reason() -> None:
    answer = adapter.run({"operation": "prune.threshold", "inputs": {}, "params": {}})
    assert answer["unsupported"]["reason"]


def test_every_expected_failure_meets_a_case() -> None:
    # the ids alone: decoding every tensor would take seconds
    cases = [
        f"{name}/{case['id']}"
        for name in SHARED
        for case in json.loads((fixtures.FOLDER / f"{name}.json").read_text())["cases"]
    ]
    for entry in expected.read("torch"):
        assert fnmatch.filter(cases, entry.case), f"{entry.case} meets no case"
