"""The numbers of the pages on pruning, penalties, layers and training, against the oracle and its fixtures."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import numpy as np
import pytest

from adapters.study import (
    adam,
    conv,
    load,
    momentum,
    penalties,
    prune_n_m,
    prune_scores,
    prune_structured,
    prunes,
    schedule,
    training_curves,
    training_step,
)
from adapters.study.cases import case
from adapters.study.model import Block, Table
from conformance.cases import Case
from conformance.compare import compare
from conformance.operations import load as load_operation


def check(operation: str, inputs: Any, params: Any, got: dict[str, Any], **setting: Any) -> None:
    """Hold outputs against the oracle."""
    known = load_operation(operation)
    defaults = {p.name: p.default for p in known.params if p.default is not None}
    expected = known.expect(
        Case(operation, "study", (), (), inputs, {**defaults, **params}), setting
    )
    found = compare(got, expected)
    assert found.difference is None, (operation, params, setting, str(found.difference))


def rows(block: Block) -> tuple[tuple[str, ...], ...]:
    assert isinstance(block, Table)
    return block.rows


@pytest.mark.parametrize("kind", ["magnitude", "gradient", "taylor"])
def test_prunings_are_the_oracles_at_every_stop(kind: str) -> None:
    weights, grads = prune_scores.tensors(kind)
    scores = prune_scores.score(kind)
    needed = {"magnitude": {"weights": weights}, "gradient": {"grads": grads}}
    check(
        f"score.{kind}",
        needed.get(kind, {"weights": weights, "grads": grads}),
        {},
        {"scores": scores},
    )
    for stop in load(kind).control("amount").stops:
        for scope in ("tensor", "global"):
            for rounding in prunes.ROUNDINGS:
                choice = {"amount": stop.value, "scope": scope, "rounding": rounding}
                masks, pruned = prune_scores.prune(kind, choice)
                inputs = {"weights": weights, "scores": scores}
                params = {"amount": stop.value, "scope": scope}
                got = {"masks": masks, "weights": pruned}
                check("prune.fraction", inputs, params, got, rounding=rounding)


def test_ties_are_those_of_the_oracle() -> None:
    topic = load("magnitude")
    stage = next(stage for stage in topic.stages if stage.id == "ties")
    for row in rows(stage.fill({"ties": "keep_all"}).blocks[0]):
        rule = row[0].strip("`")
        expected = load_operation("prune.fraction").expect(case(prune_scores.TIED), {"ties": rule})
        mask = expected.outputs["masks"][0].tensor
        assert row[1] == ", ".join("kept" if keep else "pruned" for keep in mask)


def test_groups_and_slices_are_the_oracles() -> None:
    inputs = case(prune_n_m.CASE).inputs
    for n, m in prune_n_m.PATTERNS:
        mask, pruned = prune_n_m.prune(n, m)
        check("prune.n_m", inputs, {"n": n, "m": m, "axis": -1}, {"mask": mask, "weights": pruned})
    for stop in load("structured").control("amount").stops:
        for axis in (0, 1):
            for order in prune_structured.ORDERS:
                choice = {"amount": stop.value, "axis": axis, "order": order}
                mask, pruned = prune_structured.prune(choice)
                written = "inf" if order == math.inf else order
                params = {"amount": stop.value, "axis": axis, "ord": written}
                inputs = case(prune_structured.CASE).inputs
                check("prune.structured", inputs, params, {"mask": mask, "weights": pruned})


def test_a_slices_norm_is_the_root_of_its_squares() -> None:
    found = prune_structured.norms({"axis": 0, "order": 2.0})
    assert found[0] == np.float32(1.5)  # 1 + 1 + 0.25 is 1.5 squared
    assert prune_structured.norms({"axis": 0, "order": math.inf})[0] == 1


def test_only_what_keeps_its_momentum_comes_back() -> None:
    masks = case(momentum.CASE).inputs["masks"]
    once, always, both = (momentum.run(way) for way in momentum.WAYS)
    pruned = ~np.concatenate([m.ravel() for m in masks])

    def last(tensors: list[list[Any]]) -> Any:
        return np.concatenate([t.ravel() for t in tensors[-1]])[pruned]

    assert np.all(last(once[0]) != 0)
    assert not np.any(last(always[0]))
    assert np.all(last(always[1]) != 0)
    assert not np.any(last(both[0]))
    assert not np.any(last(both[1]))
    # By hand: v = g, then 0.9 g, 0.81 g, 0.729 g; w = -0.1 (0.9 + 0.81 + 0.729) g.
    g = case(momentum.CASE).inputs["grads"][0][0][0][0, 1]
    assert once[0][-1][0][0, 1] == pytest.approx(-0.1 * 2.439 * float(g), rel=1e-6)


def test_the_schedule_is_the_oracles() -> None:
    for power in (1.0, 2.0, 3.0, 4.0):
        for frequency in (1, 2, 4):
            choice = {"power": power, "frequency": frequency}
            sparsity, updates = schedule.target(choice)
            got = {"sparsity": sparsity, "updates": updates}
            check("schedule.polynomial", {}, schedule.parameters(choice), got)


@pytest.mark.parametrize("kind", ["l1", "l2"])
def test_penalties_and_proximal_points_are_the_oracles(kind: str) -> None:
    for stop in load(kind).control("strength").stops:
        value, grads = penalties.penalised(kind, stop.value)
        inputs = case(penalties.PENALTY[kind]).inputs
        check(f"penalty.{kind}", inputs, {"strength": stop.value}, {"value": value, "grads": grads})
        chosen = case(penalties.PROX[kind])
        params = {**chosen.params, "strength": stop.value}
        got = {"weights": penalties.proximal_point(kind, stop.value)}
        check(f"prox.{kind}", chosen.inputs, params, got)


def test_forty_proximal_steps_land_on_the_soft_threshold() -> None:
    path = penalties.descend("l1", "proximal", 0.25)
    a = path[0].astype(np.float64)
    wanted = np.sign(a) * np.maximum(np.abs(a) - 0.25, 0)
    assert np.allclose(path[-1], wanted, atol=1e-6)
    assert np.array_equal(path[-1] == 0, wanted == 0)
    assert np.all(penalties.descend("l1", "subgradient", 0.25)[-1] != 0)
    assert np.allclose(penalties.descend("l2", "proximal", 0.25)[-1], a / 1.5, atol=1e-6)


def test_adam_is_the_fixtures() -> None:
    chosen = case(adam.CASE)
    for eps in (1e-8, 1e-3, 0.1):
        for place in adam.WHERE:
            path = adam.run(eps, place)
            params = {**chosen.params, "eps": eps}
            got = {"params": [[step["w"]] for step in path[1:]]}
            check("optim.adam", chosen.inputs, params, got, eps_at=place)


def test_adams_moments_by_hand() -> None:
    first = adam.run()[1]
    assert first["m"][0] == pytest.approx(0.01, rel=1e-6)
    assert first["v"][0] == pytest.approx(1e-5, rel=1e-6)
    assert first["w"][0] == pytest.approx(0.9, rel=1e-6)


def test_the_convolution_is_the_fixtures() -> None:
    got = conv.run()
    inputs = case(conv.CASE).inputs
    outputs = {name: got[name] for name in ("y", "dx", "dweight", "dbias")}
    check("layer.conv2d", inputs, case(conv.CASE).params, outputs)


@pytest.mark.parametrize(
    ("stage", "control", "output"),
    [("forward", "out", "y"), ("kernel", "tap", "dweight"), ("input", "in", "dx")],
)
def test_the_products_of_every_cell_add_up(stage: str, control: str, output: str) -> None:
    topic = load("conv")
    (chosen,) = (s for s in topic.stages if s.id == stage)
    image = conv._image(output).ravel()
    for stop in topic.control(control).stops:
        products = rows(chosen.fill({control: stop.value}).blocks[-1])
        total = sum(float(row[-1].replace("−", "-")) for row in products)
        bias = float(conv.run()["bias"][0]) if output == "y" else 0.0
        assert total + bias == pytest.approx(float(image[stop.value]), rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("name", training_step.RUNS)
def test_the_step_is_the_fixtures(name: str) -> None:
    full_id = training_step.RUNS[name]
    _, record, _ = training_step.trace(full_id)
    chosen = case(full_id)
    got = {
        "params": record.of("record", "params"),
        "total_norm": np.stack(record.of("penalty", "total_norm")),
        "skipped": np.array(record.of("finite_check", "skipped"), np.int32),
    }
    check("train.step", chosen.inputs, chosen.params, got)


def test_the_recurrent_network_diverges_without_clipping_and_converges_with_it() -> None:
    without, clipped = training_curves.run(True, math.inf), training_curves.run(True, 1.0)
    assert np.mean(without.loss[-10:]) > 10 * without.loss[0]
    assert np.mean(clipped.loss[-10:]) < 0.3
    assert without.accuracy[-1][1] < 0.5
    assert clipped.accuracy[-1][1] > 0.9
    assert max(without.norm) > 50
    assert 0 < clipped.clipped(1.0) < len(clipped.norm)


def test_pruning_while_training_reaches_its_sparsity() -> None:
    curve = training_curves.run(False, 1.0, 0.9)
    assert curve.sparsity[0] == 0
    assert curve.sparsity[-1] == pytest.approx(0.9, abs=1e-3)
    assert curve.accuracy[-1][1] > 0.85


def test_adams_three_places_of_eps_follow_from_their_formulas() -> None:
    topic = load("adam")
    stage = next(stage for stage in topic.stages if stage.id == "eps")
    for t, i, e in product(range(5), range(5), range(3)):
        shown = topic.fill(stage, {"step": t, "weight": i, "eps": e}).values
        v = {
            name: float(text.replace("−", "-").replace("NaN", "nan"))
            for name, text in shown.items()
        }
        corrected = np.sqrt(1 - 0.999 ** (t + 1)) / (1 - 0.9 ** (t + 1))
        steps = (
            v["M"] / (np.sqrt(v["V"]) + v["e"]),
            v["M"] / np.sqrt(v["V"] + v["e"]),
            corrected * v["m"] / (np.sqrt(v["v"]) + v["e"]),
        )
        for place, step in enumerate(steps):
            assert v[f"W{place}"] == pytest.approx(v[f"w{place}"] - 0.1 * step, abs=1e-6)
