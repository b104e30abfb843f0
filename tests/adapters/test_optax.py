"""Optax's adapter: what it passes on and what it declines. The suite itself judges the numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from conformance.formats import decode, encode

pytest.importorskip("optax")

import jax

from adapters.optax import adapter

# The adapter has its process to itself, these tests have not: the others meet JAX as it is by default.
jax.config.update("jax_enable_x64", False)


@pytest.fixture(autouse=True)
def float64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def ask(operation: str, inputs: dict[str, Any], **params: Any) -> dict[str, Any]:
    written = {name: _each(encode, tree) for name, tree in inputs.items()}
    answer = adapter.run({"operation": operation, "inputs": written, "params": params})
    outputs = {name: _each(decode, tree) for name, tree in answer.get("outputs", {}).items()}
    return outputs or answer


def _each(function: Any, tree: Any) -> Any:
    if isinstance(tree, list):
        return [_each(function, branch) for branch in tree]
    return None if tree is None else function(tree)


def test_the_version_names_jax_too() -> None:
    assert "+jax." in adapter.start()["implementation"]["version"]


def test_clipping_keeps_float64_and_leaves_absent_gradients_absent() -> None:
    answer = ask("clip.global_norm", {"grads": [None, np.array([3.0, -4.0])]}, max_norm=2.5, ord=2)
    assert answer["grads"][0] is None
    np.testing.assert_allclose(answer["grads"][1], [1.5, -2.0], rtol=1e-15)
    assert answer["total_norm"] == 5.0


def test_a_unit_is_named_by_its_own_axis() -> None:
    weights, grads = np.array([[3.0, 1.0], [4.0, 0.0]]), np.array([[6.0, 0.25], [8.0, 0.0]])
    inputs = {"grads": [grads], "weights": [weights]}
    answer = ask("clip.unitwise", inputs, clipping=0.5, unit_axis=1, eps=1e-3)
    np.testing.assert_allclose(answer["grads"][0], [[1.5, 0.25], [2.0, 0.0]], rtol=1e-6)


def test_examples_are_clipped_before_they_are_averaged() -> None:
    grads = np.array([[6.0, 8.0], [0.3, 0.4]])
    answer = ask(
        "clip.per_example", {"grads": [grads]}, max_norm=1.0, reduction="mean", scope="all"
    )
    np.testing.assert_allclose(answer["grads"][0], [0.45, 0.6])
    np.testing.assert_allclose(answer["norms"], [10.0, 0.5])


def test_a_changing_rate_becomes_a_schedule() -> None:
    inputs = {"params": [np.array([1.0])], "grads": [[np.array([2.0])], [np.array([4.0])]]}
    answer = ask(
        "optim.sgd", inputs, lr=[0.5, 0.125], momentum=0.0, dampening=0.0, nesterov=False,
        weight_decay=0.0,
    )  # fmt: skip
    np.testing.assert_array_equal(np.concatenate([s[0] for s in answer["params"]]), [0.0, -0.5])


def test_micro_batches_are_averaged_and_an_infinite_step_is_skipped() -> None:
    steps = [[[np.array([2.0])], [np.array([6.0])]], [[np.array([np.inf])], [np.array([1.0])]]]
    answer = ask(
        "train.step", {"params": [np.array([1.0])], "grads": steps},
        optimizer={"operation": "optim.sgd", "lr": 0.25}, clip=None, penalty=None,
        accumulate="mean", loss_scale=1.0,
    )  # fmt: skip
    np.testing.assert_array_equal([s[0][0] for s in answer["params"]], [0.0, 0.0])
    np.testing.assert_array_equal(answer["skipped"], [0, 1])
    assert answer["total_norm"][0] == 4.0


def test_what_optax_lacks_is_unsupported_with_a_reason() -> None:
    answer = ask("clip.norm", {"grads": [np.ones(2)]}, max_norm=1.0, ord=1)
    assert "2-norm" in answer["unsupported"]["reason"]
