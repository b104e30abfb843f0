"""The oracle of whole training runs against a third source, and against itself in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from conformance import digits, fixtures
from conformance.cases import Case
from conformance.compare import compare, differs
from conformance.judge import map_outputs
from conformance.operations import load, train_trajectory
from conformance.oracle import trajectories
from conformance.runner import request

torch = pytest.importorskip("torch")


def case(name: str) -> Case:
    return next(c for c in load("train.trajectory").generate() if c.id == name)


def settings(chosen: Case) -> dict[str, Any]:
    operation = load("train.trajectory")
    defaults = {p.name: p.default for p in operation.params}
    defaults |= {d.name: d.default for d in operation.all_dials}
    resolved = train_trajectory.resolved(defaults | chosen.params)
    resolved["optimizer"]["dtype"] = "float64"
    return resolved


@pytest.mark.parametrize("name", ["mlp-adam-f64", "mlp-clip-prune-momentum-f64"])
def test_float64_run_without_noise_is_the_exact_run(name: str) -> None:
    chosen = case(name)
    expected = load("train.trajectory").expect(chosen)
    run = trajectories.perturbed_run(chosen.inputs, settings(chosen), trajectories.EXACTLY)
    for step, params in enumerate(expected.outputs["params"]):
        for ours, theirs in zip(run.params[step], params, strict=True):
            np.testing.assert_allclose(ours, theirs.tensor, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(run.loss, expected.outputs["loss"].tensor, rtol=1e-12)


def test_exact_gradients_are_those_of_autograd() -> None:
    chosen = case("cnn-clip-momentum-f32")
    params = [
        torch.tensor(p.astype(np.float64), requires_grad=True) for p in chosen.inputs["params"]
    ]
    w1, b1, w2, b2, w3, b3, w4, b4 = params
    images = torch.tensor(chosen.inputs["x"][0][0].astype(np.float64)).permute(0, 3, 1, 2)
    functional = torch.nn.functional
    x = functional.relu(functional.conv2d(images, w1.permute(3, 2, 0, 1), b1))
    x = functional.relu(functional.conv2d(x, w2.permute(3, 2, 0, 1), b2))
    x = functional.avg_pool2d(x, 2).permute(0, 2, 3, 1).flatten(1)
    logits = functional.relu(x @ w3 + b3) @ w4 + b4
    loss = functional.cross_entropy(logits, torch.tensor(chosen.inputs["targets"][0][0]))
    loss.backward()
    short = {name: value[:1] for name, value in chosen.inputs.items() if name != "params"}
    inputs = {"params": chosen.inputs["params"], **short}
    record = trajectories.exact_run(inputs, settings(chosen))
    assert float(record.loss[0]) == pytest.approx(loss.item(), rel=1e-13)
    for ours, theirs in zip(record.grads[0], params, strict=True):
        exact = ours.astype(np.float64)
        np.testing.assert_allclose(exact, theirs.grad.numpy(), rtol=1e-10, atol=1e-14)


@pytest.mark.slow
@pytest.mark.parametrize("mistake", [m.name for m in load("train.trajectory").mistakes])
def test_mistake_is_caught(mistake: str) -> None:
    operation = load("train.trajectory")
    wrong = next(m for m in operation.mistakes if m.name == mistake)
    frozen = [c for c in fixtures.read(operation) if c.id.endswith("-f32")]
    assert any(
        differs(operation.expect(c, oracle=wrong.oracle), fixtures.expectation(operation, c, {}))
        for c in frozen
    )


@pytest.mark.slow
def test_gradient_of_pruned_weights_is_a_dial() -> None:
    operation = load("train.trajectory")
    chosen = next(c for c in fixtures.read(operation) if c.id == "mlp-clip-prune-momentum-f32")
    masked = operation.expect(chosen, {"prune.gradient": "masked"})
    assert differs(masked, fixtures.expectation(operation, chosen, {}))
    check_refimpl(chosen, {"prune.gradient": "masked"})


def check_refimpl(chosen: Case, setting: dict[str, Any]) -> None:
    from adapters.refimpl import adapter

    asked = request(chosen)
    asked["params"] |= setting
    outputs = map_outputs(adapter.run(asked)["outputs"])
    compared = compare(outputs, load("train.trajectory").expect(chosen, setting))
    assert compared.difference is None, str(compared.difference)


def test_clip_binds_in_some_steps_only() -> None:
    chosen = case("mlp-clip-prune-momentum-f32")
    norms = load("train.trajectory").expect(chosen).outputs["total_norm"].tensor
    assert norms.min() < chosen.params["clip"]["max_norm"] < norms.max()


def test_a_path_is_placed_in_the_run() -> None:
    assert train_trajectory.locate("grads[3][1][2, 0]") == (
        (3, 1, 1),
        "step 3, stage backward, tensor 1",
    )
    earlier, later = (
        train_trajectory.locate("params[2][0]")[0],
        train_trajectory.locate("loss[3]")[0],
    )
    assert earlier < later


def test_digits_are_those_of_scikit_learn() -> None:
    pytest.importorskip("sklearn")
    assert digits.FILE.read_bytes() == digits.frozen()
    images, labels = digits.load()
    assert images.shape == (1797, 8, 8, 1)
    assert labels.shape == (1797,)
    assert images.max() == 1.0
