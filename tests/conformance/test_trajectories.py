"""The oracle of whole training runs against a third source, and against itself in float64."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest

from conformance import digits, fixtures
from conformance.cases import Case
from conformance.compare import compare, differs
from conformance.exact import Reject
from conformance.judge import map_outputs
from conformance.operation import Expectation
from conformance.operations import load, train_trajectory
from conformance.operations._train_trajectory_cases import OPTIMIZERS, SMALL
from conformance.oracle import models, perturbed, trajectories
from conformance.runner import request

torch = pytest.importorskip("torch")
OPERATION = load("train.trajectory")


@cache
def cases() -> dict[str, Case]:
    return {case.id: case for case in fixtures.read(OPERATION)}


def frozen(case: Case) -> Expectation:
    return fixtures.expectation(OPERATION, case, {})


def settings(chosen: Case) -> dict[str, Any]:
    defaults = {p.name: p.default for p in OPERATION.params}
    defaults |= {d.name: d.default for d in OPERATION.all_dials}
    resolved = train_trajectory.resolved(defaults | chosen.params)
    resolved["optimizer"]["dtype"] = "float64"
    return resolved


LONG = ("mlp-adam-", "cnn-clip-momentum-", "mlp-clip-prune-momentum-")


def short() -> list[str]:
    made = OPERATION.generate()
    return [c.id for c in made if c.id.endswith("-f32") and not c.id.startswith(LONG)]


def test_every_model_meets_every_optimiser() -> None:
    named = {f"small-{model}-{optimizer}-f32" for model in SMALL for optimizer in OPTIMIZERS}
    assert named <= set(cases())
    used = {m["operation"] for c in cases().values() for m in c.params["model"]}
    assert used == set(train_trajectory.LAYERS)
    assert {c.params["loss"]["operation"] for c in cases().values()} == set(train_trajectory.LOSSES)


@pytest.mark.parametrize("name", ["mlp-adam-f64", "mlp-clip-prune-momentum-f64"])
def test_float64_run_without_noise_is_the_exact_run(name: str) -> None:
    chosen = cases()[name]
    check_float64(chosen, frozen(chosen))


@pytest.mark.parametrize("name", short())
def test_float64_run_of_a_short_case_is_the_exact_run(name: str) -> None:
    chosen = cases()[name]
    record = trajectories.exact_run(chosen.inputs, settings(chosen))
    run = perturbed.perturbed_run(chosen.inputs, settings(chosen), models.EXACTLY)
    for exact, ours in zip(record.params, run.params, strict=True):
        for a, b in zip(exact, ours, strict=True):
            np.testing.assert_allclose(b, a.astype(np.float64), rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(run.loss, [float(x) for x in record.loss], rtol=1e-12)


def check_float64(chosen: Case, expected: Expectation) -> None:
    run = perturbed.perturbed_run(chosen.inputs, settings(chosen), models.EXACTLY)
    for step, params in enumerate(expected.outputs["params"]):
        for ours, theirs in zip(run.params[step], params, strict=True):
            np.testing.assert_allclose(ours, theirs.tensor, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(run.loss, expected.outputs["loss"].tensor, rtol=1e-12)


def by_autograd(chosen: Case) -> tuple[float, list[Any]]:
    """Return the loss and the gradients of the first micro-batch by PyTorch in float64."""
    functional = torch.nn.functional

    def double(array: Any) -> Any:
        return torch.tensor(np.asarray(array).astype(np.float64))

    params = [double(p).requires_grad_() for p in chosen.inputs["params"]]
    masks = iter(chosen.inputs["dropout"][0][0] if "dropout" in chosen.inputs else [])
    remaining, x = list(params), double(chosen.inputs["x"][0][0])
    for layer in chosen.params["model"]:
        kind = layer["operation"].removeprefix("layer.")
        count = models.LAYERS[layer["operation"]][0]
        own, remaining = remaining[:count], remaining[count:]
        if kind == "dense":
            x = x @ own[0] + own[1]
        elif kind == "conv2d":
            x = functional.conv2d(x.permute(0, 3, 1, 2), own[0].permute(3, 2, 0, 1), own[1])
            x = x.permute(0, 2, 3, 1)
        elif kind in ("max_pool2d", "avg_pool2d"):
            pool = getattr(functional, kind)
            x = pool(x.permute(0, 3, 1, 2), layer["window"], layer.get("stride"))
            x = x.permute(0, 2, 3, 1)
        elif kind == "batch_norm":
            y = functional.batch_norm(x.movedim(-1, 1), None, None, *own, True, eps=layer["eps"])
            x = y.movedim(1, -1)
        elif kind == "rnn":
            h, states = x.new_zeros(len(x), own[0].shape[1]), []
            for t in range(x.shape[1]):
                cut = layer.get("truncate") and t % layer["truncate"] == 0
                h = torch.tanh(x[:, t] @ own[0] + (h.detach() if cut else h) @ own[1] + own[2])
                states.append(h)
            x = torch.stack(states, dim=1)
        elif kind == "dropout":
            x = x * torch.tensor(next(masks)) / (1 - layer["rate"])
        elif kind == "leaky_relu":
            x = functional.leaky_relu(x, layer["slope"])
        else:
            x = x.flatten(1) if kind == "flatten" else getattr(torch, kind)(x)
    described = chosen.params["loss"]
    name, targets = described["operation"], chosen.inputs["targets"][0][0]
    if name == "loss.softmax_cross_entropy":
        loss = functional.cross_entropy(x, torch.tensor(targets), reduction=described["reduction"])
    else:
        measure = {
            "loss.mse": functional.mse_loss,
            "loss.binary_cross_entropy": functional.binary_cross_entropy_with_logits,
        }[name]
        loss = measure(x, double(targets), reduction=described["reduction"])
    loss.backward()
    return loss.item(), [p.grad.numpy() for p in params]


@pytest.mark.parametrize("name", ["cnn-clip-momentum-f32", *short()])
def test_exact_gradients_are_those_of_autograd(name: str) -> None:
    chosen = cases()[name]
    loss, grads = by_autograd(chosen)
    first = {k: [v[0][:1]] for k, v in chosen.inputs.items() if k != "params"}
    inputs = {"params": chosen.inputs["params"], **first}
    record = trajectories.exact_run(inputs, settings(chosen) | {"penalty": None})
    assert float(record.loss[0]) == pytest.approx(loss, rel=1e-12)
    for ours, theirs in zip(record.grads[0], grads, strict=True):
        np.testing.assert_allclose(ours.astype(np.float64), theirs, rtol=1e-9, atol=1e-13)


@pytest.mark.long
@pytest.mark.parametrize("mistake", [m.name for m in OPERATION.mistakes])
def test_mistake_is_caught(mistake: str) -> None:
    wrong = next(m for m in OPERATION.mistakes if m.name == mistake)
    for name in [*short(), "mlp-clip-prune-momentum-f32"]:
        if differs(OPERATION.expect(cases()[name], oracle=wrong.oracle), frozen(cases()[name])):
            return
    pytest.fail(f"no float32 case catches: {wrong.description}")


PREFIXED = [d for d in OPERATION.dials if d.name.startswith(("optimizer.", "prune.", "clip."))]


@pytest.mark.long
@pytest.mark.parametrize("dial", PREFIXED, ids=lambda d: d.name)
def test_refimpl_follows_a_dial_through_short_runs(dial: Any) -> None:
    told = False
    for value in dial.others:
        setting = {**dial.context, dial.name: value}
        for name in [*short()[::3], "prune-adamw-f32", "small-rnn-adagrad-f32"]:
            check_refimpl(cases()[name], setting)
            told = told or differs(OPERATION.expect(cases()[name], setting), frozen(cases()[name]))
    assert told or dial.name in ("clip.negative_limit", "optimizer.step_count"), dial.name


@pytest.mark.long
def test_gradient_of_pruned_weights_is_a_dial() -> None:
    chosen = cases()["mlp-clip-prune-momentum-f32"]
    masked = OPERATION.expect(chosen, {"prune.gradient": "masked"})
    assert differs(masked, frozen(chosen))
    check_refimpl(chosen, {"prune.gradient": "masked"})


def check_refimpl(chosen: Case, setting: dict[str, Any]) -> None:
    from adapters.refimpl import adapter

    asked = request(chosen)
    asked["params"] |= setting
    outputs = map_outputs(adapter.run(asked)["outputs"])
    compared = compare(outputs, OPERATION.expect(chosen, setting))
    assert compared.difference is None, f"{chosen.id} {setting}: {compared.difference}"


def test_clip_binds_in_some_steps_only() -> None:
    chosen = cases()["mlp-clip-prune-momentum-f32"]
    norms = frozen(chosen).outputs["total_norm"].tensor
    assert norms.min() < chosen.params["clip"]["max_norm"] < norms.max()


def test_a_unit_on_the_other_side_of_its_kink_is_seen() -> None:
    chosen = cases()["small-mlp-sgd-f32"]
    with pytest.raises(perturbed.Kink):
        perturbed.deviations(chosen.inputs, settings(chosen), 2.0**-6, seed=1)


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


@pytest.mark.parametrize("index", [0, 1])
def test_a_parameter_of_another_shape_is_refused_not_broadcast(index: int) -> None:
    model = [{"operation": "layer.dense", "units": 3}]
    params = [np.ones((2, 3)), np.ones(3)]
    x = np.array([[1.0, -2.0], [0.5, 4.0]])
    assert models.forward(model, params, x, models.EXACTLY)[0].shape == (2, 3)
    params[index] = params[index][None]
    with pytest.raises(Reject, match=r"a parameter of layer\.dense has the shape \(1, "):
        models.forward(model, params, x, models.EXACTLY)
