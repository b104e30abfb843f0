"""TensorFlow's adapter: what it passes on and what it declines. The suite itself judges the numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from conformance.formats import decode, encode
from conformance.operations import load, names

pytest.importorskip("tensorflow")

from adapters.tensorflow import adapter


def ask(operation: str, inputs: dict[str, Any], **params: Any) -> dict[str, Any]:
    written = {name: _each(encode, tree) for name, tree in inputs.items()}
    return adapter.run({"operation": operation, "inputs": written, "params": params})


def outputs(answer: dict[str, Any]) -> dict[str, Any]:
    return {name: _each(decode, tree) for name, tree in answer["outputs"].items()}


def _each(function: Any, tree: Any) -> Any:
    if isinstance(tree, list):
        return [_each(function, branch) for branch in tree]
    return None if tree is None else function(tree)


def test_the_version_names_keras_too() -> None:
    version = adapter.start()["implementation"]["version"]
    assert "+keras." in version


NAMED = [
    name for name in names() if name in adapter.functions and "tensorflow" in load(name).dialects
]


@pytest.mark.parametrize("name", NAMED)
def test_the_declared_dialect_is_the_one_that_the_operation_names(name: str) -> None:
    assert adapter.dialect[name] == load(name).dialects["tensorflow"]


def test_clipping_leaves_absent_gradients_absent() -> None:
    grads = [None, np.array([3.0, -4.0])]
    clipped = outputs(ask("clip.global_norm", {"grads": grads}, max_norm=2.5, ord=2))
    assert clipped["grads"][0] is None
    np.testing.assert_allclose(clipped["grads"][1], [1.5, -2.0])
    assert clipped["total_norm"] == 5.0


def test_other_norms_are_declined_with_a_reason() -> None:
    answer = ask("clip.norm", {"grads": [np.ones(2)]}, max_norm=1.0, ord=1)
    assert "2-norm" in answer["unsupported"]["reason"]


def test_a_value_clip_takes_one_bound_or_a_width() -> None:
    grads = {"grads": [np.array([-3.0, 0.5, 2.0])]}
    np.testing.assert_array_equal(
        outputs(ask("clip.value", grads, max=1.0))["grads"][0], [-3.0, 0.5, 1.0]
    )
    np.testing.assert_array_equal(
        outputs(ask("clip.value", grads, range=2.0))["grads"][0], [-1.0, 0.5, 1.0]
    )


def test_mixed_dtypes_are_refused_not_errored() -> None:
    grads = [np.ones(2, np.float32), np.ones(2, np.float64)]
    assert "rejected" in ask("clip.global_norm", {"grads": grads}, max_norm=1.0, ord=2)


def test_an_optimiser_follows_its_learning_rates_and_skips_absent_gradients() -> None:
    inputs = {
        "params": [np.array([1.0, 2.0]), np.array([4.0])],
        "grads": [[np.array([2.0, -4.0]), None], [None, None], [None, np.array([8.0])]],
    }
    answer = ask("optim.sgd", inputs, lr=[0.5, 0.5, 0.25], momentum=0, dampening=0,
                 nesterov=False, weight_decay=0)  # fmt: skip
    steps = outputs(answer)["params"]
    np.testing.assert_array_equal(steps[0][0], [0.0, 4.0])
    np.testing.assert_array_equal(steps[1][1], [4.0])
    np.testing.assert_array_equal(steps[2][0], [0.0, 4.0])
    np.testing.assert_array_equal(steps[2][1], [2.0])


def test_a_learning_rate_passes_through_float32_as_the_dialect_says() -> None:
    inputs = {"params": [np.array([0.0])], "grads": [[np.array([1.0])]]}
    answer = ask(
        "optim.sgd", inputs, lr=0.1, momentum=0, dampening=0, nesterov=False, weight_decay=0
    )
    assert adapter.dialect["optim.sgd"]["hyperparameters"] == "float32"
    assert outputs(answer)["params"][0][0][0] == -float(np.float32(0.1))


def test_a_grouped_dilated_convolution_has_its_gradients() -> None:
    x = np.arange(1.0, 13.0).reshape(1, 3, 2, 2)
    weight = np.array([2.0, -3.0, 5.0, 7.0]).reshape(2, 1, 1, 2)
    inputs = {"x": x, "weight": weight, "dy": np.array([[[[1.0, 2.0], [-1.0, 4.0]]]])}
    answer = ask("layer.conv2d", inputs, stride=[1, 1], padding=[[0, 0], [0, 0]],
                 dilation=[2, 1], groups=2)  # fmt: skip
    got = outputs(answer)
    # y[0, 0, q, c] = x[0, 0, q, c] w[0, c] + x[0, 2, q, c] w[1, c]
    np.testing.assert_allclose(got["y"][0, 0], [[47.0, 64.0], [61.0, 72.0]])
    np.testing.assert_allclose(got["dweight"].ravel(), [-2.0, 20.0, -2.0, 68.0])
    np.testing.assert_allclose(got["dx"][0, 0], [[2.0, -6.0], [-2.0, -12.0]])
    np.testing.assert_allclose(got["dx"][0, 1], np.zeros((2, 2)))
    assert got["dbias"] is None


def test_padding_never_wins_a_dilated_maximum() -> None:
    x = -np.arange(1.0, 10.0).reshape(1, 3, 3, 1)
    inputs = {"x": x, "dy": np.ones((1, 3, 3, 1))}
    answer = ask("layer.max_pool2d", inputs, window=[2, 2], stride=[1, 1],
                 padding=[[1, 1], [1, 1]], dilation=[2, 2])  # fmt: skip
    assert np.all(outputs(answer)["y"] < 0)


def test_an_average_with_padding_other_than_same_is_declined() -> None:
    inputs = {"x": np.ones((1, 4, 4, 1)), "dy": np.ones((1, 4, 4, 1))}
    answer = ask("layer.avg_pool2d", inputs, window=[2, 2], stride=[2, 2],
                 padding=[[1, 1], [1, 1]], dilation=[1, 1], ceil_mode=False)  # fmt: skip
    assert "SAME" in answer["unsupported"]["reason"]
