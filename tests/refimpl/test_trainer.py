"""The trainer: order of stages, accumulation, skipped steps, masks, and what the caller owns."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from refimpl import models, trainer
from refimpl.trainer import Plan, Trace, start, train, train_step

SGD: dict[str, Any] = {"operation": "optim.sgd", "lr": 0.5}
MOMENTUM: dict[str, Any] = {**SGD, "momentum": 0.9}
CLIP = {"operation": "clip.global_norm", "max_norm": 1.0}


def arrays(*values: Any) -> list[Any]:
    return [np.array(v, dtype=np.float64) for v in values]


def test_clip_comes_after_accumulation() -> None:
    plan = Plan(SGD, clip=CLIP, accumulate="sum")
    state = train_step(plan, start(plan, arrays([0, 0])), [arrays([2, 0]), arrays([0, 2])])
    np.testing.assert_allclose(state.params[0], [-0.5 / np.sqrt(2)] * 2)


def test_clip_comes_after_unscaling() -> None:
    plan = Plan(SGD, clip=CLIP, loss_scale=1024.0)
    state = train_step(plan, start(plan, arrays([0, 0])), [arrays([102.4, 0])])
    np.testing.assert_allclose(state.params[0], [-0.05, 0])


def test_decay_escapes_the_clip() -> None:
    plan = Plan({**SGD, "weight_decay": 0.1}, clip=CLIP)
    state = train_step(plan, start(plan, arrays([100.0])), [arrays([0.0])])
    np.testing.assert_allclose(state.params[0], [95.0])


def test_non_finite_step_is_skipped_whole() -> None:
    plan = Plan(MOMENTUM)
    before = train_step(plan, start(plan, arrays([1, -2], [3])), [arrays([1, 2], [3])])
    after = train_step(plan, before, [arrays([np.inf, 0], [1])])
    assert after.step == 2
    assert after.optimizer == before.optimizer
    for ours, theirs in zip(after.params, before.params, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_momentum_does_not_revive_a_pruned_weight() -> None:
    plan = Plan(MOMENTUM)
    mask = [np.array([True, False])]
    state = start(plan, arrays([1, -2]), mask)
    for grad in ([1, 2], [-0.5, 3]):
        state = train_step(plan, state, [arrays(grad)])
        assert state.params[0][1] == 0
        assert not np.signbit(state.params[0][1])
        assert state.optimizer["velocity"][0][1] == 0
    assert state.params[0][0] != 0


def test_nothing_of_the_caller_is_written_to() -> None:
    plan = Plan({**MOMENTUM, "weight_decay": 0.1}, clip=CLIP, loss_scale=2.0)
    params, grads = arrays([3, -4]), arrays([6, 8])
    for array in (*params, *grads):
        array.setflags(write=False)
    train_step(plan, train_step(plan, start(plan, params), [grads, grads]), [grads])


@pytest.mark.parametrize(
    "other",
    [
        {"clip": CLIP},
        {"penalty": {"operation": "penalty.l1", "strength": 0.1}},
        {"prox": {"operation": "prox.l1", "strength": 0.1}},
        {"accumulate": "sum"},
        {"loss_scale": 4.0},
    ],
)
def test_every_part_of_a_plan_has_an_effect(other: dict[str, Any]) -> None:
    def run(plan: Plan) -> Any:
        state = start(plan, arrays([3, -4], [0.01]))
        return train_step(plan, state, [arrays([6, 8], [0.1]), arrays([1, 2], [0.3])]).params

    pairs = zip(run(Plan(SGD)), run(Plan(SGD, **other)), strict=True)
    assert any(not np.array_equal(a, b) for a, b in pairs)


MODEL: list[dict[str, Any]] = [
    {"operation": "layer.conv2d", "filters": 3, "kernel": [2, 2]},
    {"operation": "layer.relu"},
    {"operation": "layer.max_pool2d", "window": [2, 2]},
    {"operation": "layer.flatten"},
    {"operation": "layer.dense", "units": 4},
]


def test_twelve_examples_are_three_times_four() -> None:
    rng = np.random.default_rng(5)
    x, targets = rng.normal(size=(12, 5, 5, 2)), rng.integers(0, 4, 12)
    params = models.initial_params(MODEL, (5, 5, 2), seed=3, dtype="float64")
    loss, plan = {"operation": "loss.softmax_cross_entropy"}, Plan(MOMENTUM, clip=CLIP)
    whole = train(MODEL, loss, plan, start(plan, params), [[(x, targets)]])
    parts = [(x[i : i + 4], targets[i : i + 4]) for i in (0, 4, 8)]
    split = train(MODEL, loss, plan, start(plan, params), [parts])
    for a, b in zip(whole.params, split.params, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)


def test_model_gradient_is_the_finite_difference() -> None:
    rng = np.random.default_rng(6)
    x, targets = rng.normal(size=(3, 5, 5, 2)), rng.integers(0, 4, 3)
    params = models.initial_params(MODEL, (5, 5, 2), seed=4, dtype="float64")

    def value(changed: list[Any]) -> float:
        y, _ = models.forward(MODEL, changed, x)
        return float(models.loss({"operation": "loss.softmax_cross_entropy"}, y, targets)[0])

    y, backprop = models.forward(MODEL, params, x)
    _, gradient = models.loss({"operation": "loss.softmax_cross_entropy"}, y, targets)
    _, grads = backprop(gradient())
    for i, grad in enumerate(grads):
        direction = rng.normal(size=grad.shape)
        ahead = [p + 1e-6 * direction if j == i else p for j, p in enumerate(params)]
        behind = [p - 1e-6 * direction if j == i else p for j, p in enumerate(params)]
        slope = (value(ahead) - value(behind)) / 2e-6
        assert slope == pytest.approx(float((grad * direction).sum()), rel=1e-6, abs=1e-9)


def test_trace_names_the_stages_in_their_order() -> None:
    trace, plan = Trace(), Plan(SGD, clip=CLIP)
    train_step(plan, start(plan, arrays([1.0])), [arrays([2.0])], trace)
    assert [stage for _, stage, _ in trace.records] == [
        "accumulate", "unscale", "penalty", "finite_check", "clip", "update", "mask_schedule",
        "mask", "record",
    ]  # fmt: skip


def test_seed_decides_the_order_of_examples() -> None:
    assert list(trainer.minibatches(7, 3, seed=1)) == list(trainer.minibatches(7, 3, seed=1))
    assert list(trainer.minibatches(7, 3, seed=1)) != list(trainer.minibatches(7, 3, seed=2))
    assert sorted(i for b in trainer.minibatches(7, 3, seed=1) for i in b) == list(range(7))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"accumulate": "max"}, "accumulate must be mean or sum"),
        ({"loss_scale": 0.0}, "loss_scale must be a finite number > 0"),
        ({"loss_scale": [1.0, float("inf")]}, "loss_scale must be a finite number > 0"),
    ],
)
def test_plan_refuses_what_no_stage_can_do(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Plan(SGD, **wrong)


def test_unknown_names_are_refused_with_those_that_exist() -> None:
    with pytest.raises(ValueError, match=r"unknown optimizer 'optim.lion'; there are: optim.sgd"):
        start(Plan({"operation": "optim.lion", "lr": 1.0}), arrays([1.0]))
    with pytest.raises(ValueError, match=r"unknown layer 'layer.gelu'"):
        models.forward([{"operation": "layer.gelu"}], [], np.zeros((1, 2)))


def test_gradients_that_score_are_those_at_the_masked_weights() -> None:
    """As google-research/rigl#14 asks: not those of the weights before they were masked."""
    model = [{"operation": "layer.dense", "units": 1}]
    weight, mask = np.array([[2.0], [3.0]]), np.array([[True], [False]])
    x, targets = np.array([[1.0, 1.0], [2.0, -1.0]]), np.array([[0.5], [1.0]])
    plan, trace = Plan({"operation": "optim.sgd", "lr": 0.0}), Trace()
    state = train_step(
        plan, start(plan, [weight, np.zeros(1)], [mask, None]), [arrays([[0.0], [0.0]], [0.0])]
    )
    train(model, {"operation": "loss.mse"}, plan, state, [[(x, targets)]], trace)
    (grads,) = trace.of("penalty", "grads")
    # y = 2·x_0: residuals 1.5 and 3, and the gradient is their mean times 2·x
    np.testing.assert_allclose(grads[0], [[1.5 + 2 * 3.0], [1.5 - 3.0]])
    dense = 2 / 2 * x.T @ (x @ weight - targets)
    assert not np.allclose(grads[0], dense), "the numbers must tell the two apart"


@pytest.mark.parametrize(
    ("optimizer", "first"),
    [
        # w = 1, g = 3: v = 0.75·9 under a root; G = 9
        ({"operation": "optim.rmsprop", "alpha": 0.25, "eps": 0.5}, 1 - 3 / (6.75**0.5 + 0.5)),
        ({"operation": "optim.adagrad", "eps": 0.5}, 1 - 3 / 3.5),
    ],
)
def test_adaptive_optimisers_take_their_step(optimizer: dict[str, Any], first: float) -> None:
    plan = Plan({**optimizer, "lr": 1.0})
    state = train_step(plan, start(plan, arrays([1.0])), [arrays([3.0])])
    assert state.params[0][0] == pytest.approx(first, rel=1e-14)


@pytest.mark.parametrize(
    ("score", "kept"),
    [
        # w after the step is w itself (lr 0): magnitudes 3, 2, 1, 4
        ("score.magnitude", [True, False, False, True]),
        ("score.gradient", [False, True, True, False]),  # |g| 1, 6, 7, 0.5
        ("score.fisher", [False, True, True, False]),
        ("score.taylor", [False, True, True, False]),  # |g·w| 3, 12, 7, 2
        ("score.snip", [False, True, True, False]),
        ("score.movement", [True, False, False, True]),  # -g·w 3, -12, -7, 2
    ],
)
def test_every_score_can_prune(score: str, kept: list[bool]) -> None:
    schedule = {"operation": "schedule.constant", "begin": 0, "end": 0, "final": 0.5}
    prune = {"score": score, "schedule": schedule, "parameters": [0]}
    plan = Plan({"operation": "optim.sgd", "lr": 0.0}, prune=prune)
    state = start(plan, arrays([3.0, -2.0, 1.0, 4.0]))
    state = train_step(plan, state, [arrays([-1.0, -6.0, 7.0, -0.5])])
    assert state.masks[0] is not None
    assert state.masks[0].tolist() == kept


def test_norm_of_no_gradients_is_an_array_of_the_library_of_the_parameters() -> None:
    xp = pytest.importorskip("array_api_strict")
    params = [xp.asarray([1.0, 2.0], dtype=xp.float64, device=xp.Device("device1"))]
    plan, trace = Plan(MOMENTUM, clip=CLIP), Trace()
    state = train_step(plan, start(plan, params), [[None]], trace)
    [norm] = trace.of("penalty", "total_norm")
    assert (norm.dtype, norm.device) == (xp.float64, params[0].device)
    assert state.step == 1
    assert state.optimizer["step"] == [0]
    assert state.params[0] is params[0]
