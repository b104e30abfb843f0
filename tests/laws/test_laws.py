"""Laws that hold whatever the numbers are, with numbers that Hypothesis chooses."""

# No list here has absent entries, which the types of refimpl allow for.
# mypy: disable-error-code="arg-type, operator, union-attr, index, misc"

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from refimpl import (
    clipping,
    layers,
    losses,
    optimizers,
    pruning,
    regularization,
    scores,
    trainer,
)

EPS = float(np.finfo(np.float64).eps)
numbers = st.floats(-1e6, 1e6, allow_subnormal=False).map(lambda x: x if abs(x) > 1e-9 else 0.0)
tensors = hnp.arrays(np.float64, hnp.array_shapes(max_dims=3, max_side=5), elements=numbers)
lists = st.lists(tensors, min_size=1, max_size=4)
limits = st.floats(1e-3, 1e3)
orders = st.sampled_from([0.5, 1.0, 2.0, 3.0, float("inf")])
quick = settings(max_examples=60, deadline=None)


def norm(grads: Any, ord: float = 2.0) -> float:
    return float(clipping.global_norm(grads, ord))


def rounding(grads: Any, ord: float) -> float:
    """Return the relative error that any order of summation may bring to a norm and a product."""
    return ((sum(g.size for g in grads) + 2) / min(ord, 1e9) + 10) * EPS


@quick
@given(lists, limits, orders)
def test_a_clipped_gradient_is_no_longer_than_the_limit(
    grads: Any, limit: float, ord: float
) -> None:
    clipped, _ = clipping.clip_global_norm(grads, limit, ord)
    assert norm(clipped, ord) <= limit * (1 + rounding(grads, ord))


@quick
@given(lists, limits, orders)
def test_clipping_twice_is_clipping_once(grads: Any, limit: float, ord: float) -> None:
    once, _ = clipping.clip_global_norm(grads, limit, ord)
    twice, _ = clipping.clip_global_norm(once, limit, ord)
    for a, b in zip(once, twice, strict=True):
        np.testing.assert_allclose(a, b, rtol=2 * rounding(grads, ord))


@quick
@given(lists, limits)
def test_a_norm_clip_keeps_the_direction(grads: Any, limit: float) -> None:
    clipped, total = clipping.clip_global_norm(grads, limit)
    coefficient = min(1.0, limit / float(total)) if total else 1.0
    for g, c in zip(grads, clipped, strict=True):
        np.testing.assert_allclose(c, coefficient * g, rtol=rounding(grads, 2.0))


@quick
@given(lists, limits, st.randoms(use_true_random=False))
def test_the_order_of_tensors_does_not_matter(grads: Any, limit: float, random: Any) -> None:
    order = list(range(len(grads)))
    random.shuffle(order)
    straight, n = clipping.clip_global_norm(grads, limit)
    shuffled, m = clipping.clip_global_norm([grads[i] for i in order], limit)
    assert abs(float(n) - float(m)) <= rounding(grads, 2.0) * float(n)
    for place, i in enumerate(order):
        np.testing.assert_allclose(shuffled[place], straight[i], rtol=2 * rounding(grads, 2.0))


@quick
@given(lists, limits, st.integers(-60, 60))
def test_a_power_of_two_scales_everything_exactly(grads: Any, limit: float, k: int) -> None:
    scale = 2.0**k
    plain, n = clipping.clip_global_norm(grads, limit)
    scaled, m = clipping.clip_global_norm([g * scale for g in grads], limit * scale)
    assert float(m) == float(n) * scale
    for a, b in zip(plain, scaled, strict=True):
        np.testing.assert_array_equal(a * scale, b)


@quick
@given(lists, limits)
def test_value_clip_is_idempotent_and_bounded(grads: Any, limit: float) -> None:
    once = clipping.clip_value(grads, -limit, limit / 2)
    twice = clipping.clip_value(once, -limit, limit / 2)
    for a, b in zip(once, twice, strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.size == 0 or (a.min() >= -limit and a.max() <= limit / 2)


@quick
@given(lists, st.floats(0, 1), st.floats(0, 1), st.sampled_from(["tensor", "global"]))
def test_a_lower_amount_after_a_higher_one_prunes_nothing(
    weights: Any, a: float, b: float, scope: str
) -> None:
    low, high = sorted((a, b))
    ranked = scores.magnitude(weights)
    masks, pruned = pruning.prune_fraction(weights, ranked, amount=high, scope=scope)
    again, same = pruning.prune_fraction(
        pruned, scores.magnitude(pruned), amount=low, scope=scope, previous=masks, iterate="total"
    )
    for x, y in zip([*masks, *pruned], [*again, *same], strict=True):
        np.testing.assert_array_equal(x, y)


@quick
@given(lists, st.floats(0, 1))
def test_exactly_the_rounded_amount_is_pruned(weights: Any, amount: float) -> None:
    masks, pruned = pruning.prune_fraction(
        weights, scores.magnitude(weights), amount=amount, scope="global"
    )
    count = sum(w.size for w in weights)
    assert sum(int((~m).sum()) for m in masks) == round(amount * count)
    for mask, weight in zip(masks, pruned, strict=True):
        assert not np.signbit(weight[~mask]).any()
        assert (weight[~mask] == 0).all()


@quick
@given(tensors, st.floats(1e-3, 1e3), st.floats(1e-3, 10))
def test_soft_threshold_is_the_value_clip_taken_away(w: Any, strength: float, step: float) -> None:
    # Moreau: prox of the L1 norm plus the projection on the box of its dual is the identity.
    threshold = strength * step
    [shrunk] = regularization.prox_l1([w], strength, step)
    [inside] = clipping.clip_value([w], -threshold, threshold)
    np.testing.assert_allclose(shrunk + inside, w, rtol=4 * EPS, atol=4 * EPS * threshold)


@st.composite
def per_example(draw: Any) -> list[Any]:
    """Return the gradients of twelve examples, one array (12, ...) for each parameter, no number twice."""
    shapes = draw(
        st.lists(hnp.array_shapes(min_dims=0, max_dims=3, max_side=4), min_size=1, max_size=4)
    )
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    spread = draw(st.floats(0, 6))
    return [
        random.normal(size=(12, *shape)) * 10.0 ** random.uniform(-spread, spread, (12, *shape))
        for shape in shapes
    ]


@quick
@given(per_example(), st.permutations(range(12)), limits, st.sampled_from(["mean", "sum"]))
def test_twelve_examples_are_three_times_four_accumulated(
    grads: Any, order: list[int], limit: float, reduction: str
) -> None:
    # Every example has a gradient of its own, in every element.
    plan = trainer.Plan(
        {"operation": "optim.sgd", "lr": 0.5, "momentum": 0.9},
        clip={"operation": "clip.global_norm", "max_norm": limit},
        accumulate=reduction,
    )

    def reduced(g: Any) -> Any:
        return np.asarray(np.mean(g, axis=0) if reduction == "mean" else np.sum(g, axis=0))

    params = [np.zeros(g.shape[1:]) for g in grads]
    start = trainer.start(plan, params)
    whole = trainer.train_step(plan, start, [[reduced(g) for g in grads]])
    fours = [order[:4], order[4:8], order[8:]]
    parts = trainer.train_step(plan, start, [[reduced(g[four]) for g in grads] for four in fours])
    # The terms may cancel, so that an error is of the sum of their sizes.
    total = norm([reduced(g) for g in grads])
    factor = 0.5 * min(1.0, limit / total) if total else 0.5
    lost = 32 * EPS * norm([reduced(np.abs(g)) for g in grads])
    for a, b, g in zip(whole.params, parts.params, grads, strict=True):
        sizes = reduced(np.abs(g))
        bound = factor * (32 * EPS * sizes + np.abs(reduced(g)) * 2 * lost / max(total, lost))
        assert np.all(np.abs(a - b) <= bound + 1e-300)


@quick
@given(st.integers(0, 2**32 - 1), st.sampled_from(["mean", "sum"]))
def test_a_model_learns_the_same_from_twelve_examples_and_from_three_times_four(
    seed: int, reduction: str
) -> None:
    random = np.random.default_rng(seed)
    x, targets = random.normal(size=(12, 5)), random.integers(0, 3, size=12)
    params = [random.normal(size=(5, 3)), random.normal(size=3)]

    def gradients(examples: slice) -> list[Any]:
        y, backprop = layers.dense(x[examples], *params)
        _, dlogits = losses.softmax_cross_entropy(y, targets[examples], reduction)
        return list(backprop(dlogits())[1:])

    plan = trainer.Plan(
        {"operation": "optim.adam", "lr": 0.01, "eps": 0.1},
        clip={"operation": "clip.global_norm", "max_norm": 0.125},
        accumulate=reduction,
    )
    start = trainer.start(plan, params)
    whole = trainer.train_step(plan, start, [gradients(slice(0, 12))])
    parts = trainer.train_step(plan, start, [gradients(slice(i, i + 4)) for i in (0, 4, 8)])
    for a, b, before in zip(whole.params, parts.params, params, strict=True):
        assert np.all(a != before)
        np.testing.assert_allclose(a, b, rtol=0, atol=200 * EPS)


@quick
@given(lists, st.integers(1, 4), limits)
def test_equal_micro_batches_are_one_batch(grads: Any, k: int, limit: float) -> None:
    plan = trainer.Plan(
        {"operation": "optim.sgd", "lr": 0.5, "momentum": 0.9},
        clip={"operation": "clip.global_norm", "max_norm": limit},
    )
    params = [np.zeros_like(g) for g in grads]
    whole = trainer.train_step(plan, trainer.start(plan, params), [grads])
    parts = trainer.train_step(plan, trainer.start(plan, params), [grads] * k)
    for a, b in zip(whole.params, parts.params, strict=True):
        np.testing.assert_allclose(a, b, rtol=rounding(grads, 2.0) + 2 * k * EPS)


@quick
@given(tensors, st.sampled_from([16.0, 1024.0, 65536.0]))
def test_a_loss_scale_changes_nothing(grad: Any, scale: float) -> None:
    clip = {"operation": "clip.global_norm", "max_norm": 1.0}
    sgd = {"operation": "optim.sgd", "lr": 0.5}
    plain, scaled = trainer.Plan(sgd, clip=clip), trainer.Plan(sgd, clip=clip, loss_scale=scale)
    start = [np.ones_like(grad)]
    a = trainer.train_step(plain, trainer.start(plain, start), [[grad]])
    b = trainer.train_step(scaled, trainer.start(scaled, start), [[grad * scale]])
    np.testing.assert_array_equal(a.params[0], b.params[0])


@quick
@given(lists, st.data())
def test_masked_weights_stay_zero_under_every_optimiser(params: Any, data: Any) -> None:
    optimizer = data.draw(
        st.sampled_from(
            [optimizers.sgd(0.1, momentum=0.9), optimizers.adam(0.1), optimizers.adamw(0.1)]
        )
    )
    masks = [np.abs(p) > np.median(np.abs(p)) if p.size else p > 0 for p in params]
    state = optimizer.init(params)
    for step in range(3):
        grads = [np.cos(p + step) for p in params]
        params, state = optimizer.update(params, grads, state)
        params = [pruning.apply_mask(p, m) for p, m in zip(params, masks, strict=True)]
        state = optimizers.mask_state(state, masks)
        assert all((p[~m] == 0).all() for p, m in zip(params, masks, strict=True))


@quick
@given(lists, st.integers(1, 5))
def test_shards_have_the_norm_of_the_whole(grads: Any, shards: int) -> None:
    pieces = [part for g in grads for part in np.array_split(g.ravel(), shards)]
    assert abs(norm(pieces) - norm(grads)) <= 2 * rounding(grads, 2.0) * norm(grads)
