"""Arrays joined into one long array, as on a GPU or if they are small, beside arrays taken one by one."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

from refimpl import arrays, bundles, optimizers
from refimpl.clipping import clip_global_norm

torch = pytest.importorskip("torch")

NAMES = {"float32": torch.float32, "float64": torch.float64, "float16": torch.float16}
LISTS: dict[str, list[tuple[tuple[int, ...], str] | None]] = {
    "one dtype": [((3, 4), "float32"), ((5,), "float32"), ((), "float32"), ((2, 1, 3), "float32")],
    "three dtypes": [
        ((3,), "float16"),
        ((4, 2), "float64"),
        ((2,), "float32"),
        ((2, 2), "float16"),
    ],
    "absent and empty": [None, ((4,), "float32"), ((0, 3), "float32"), None, ((2, 2), "float32")],
    "a single one": [((4, 3), "float32")],
}


def grads(name: str) -> list[Any]:
    rng = np.random.default_rng(7)
    return [
        None if entry is None else torch.tensor(rng.normal(size=entry[0]), dtype=NAMES[entry[1]])
        for entry in LISTS[name]
    ]


def bits(array: Any) -> bytes:
    values: bytes = array.contiguous().numpy().tobytes()
    return values


def both(
    given: list[Any], max_norm: float, monkeypatch: pytest.MonkeyPatch, **dials: Any
) -> tuple[Any, Any]:
    one_by_one = clip_global_norm(given, max_norm, **dials)
    with monkeypatch.context() as patch:
        patch.setattr(bundles, "start_slowly", lambda xp, given: True)
        return one_by_one, clip_global_norm(given, max_norm, **dials)


@pytest.mark.parametrize("name", LISTS)
@pytest.mark.parametrize("ord", [1.0, 2.0, 3.0, np.inf])
def test_joined_gradients_are_clipped_as_each_by_itself(
    name: str, ord: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = grads(name)
    (expected, norm), (got, joined) = both(given, 0.25, monkeypatch, ord=ord)
    # Only the order of the sum differs: n - 1 additions, a root, and the rounding of c/n and of the product.
    unit = 2.0**-53 if norm.dtype == torch.float64 else 2.0**-24
    bound = 2 * sum(g.numel() for g in given if g is not None) * unit
    assert joined.dtype == norm.dtype
    assert abs(float(joined) - float(norm)) <= bound * float(norm)
    for one, other in zip(expected, got, strict=True):
        assert (one is None) is (other is None)
        if one is not None:
            assert one.shape == other.shape
            assert one.dtype == other.dtype
            own = {torch.float16: 2.0**-10, torch.float32: 2.0**-23, torch.float64: 2.0**-52}
            np.testing.assert_allclose(other.numpy(), one.numpy(), rtol=bound + own[one.dtype])


def test_below_the_limit_the_very_bits_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    given = grads("three dtypes")
    _, (got, _) = both(given, 1e6, monkeypatch)
    assert [bits(g) for g in got] == [bits(g) for g in given]


def test_sums_in_a_narrow_dtype_are_not_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    # 200² + 200² is more than float16 holds; each square alone is not.
    given = [torch.tensor([200.0], dtype=torch.float16), torch.tensor([200.0], dtype=torch.float16)]
    dials = {"accumulate": "input_dtype", "norm": "naive"}
    (_, norm), (_, joined) = both(given, 1.0, monkeypatch, **dials)
    assert float(joined) == float(norm) < np.inf


@pytest.mark.parametrize("duplicates", ["once", "twice", "twice_in_place"])
def test_a_tied_gradient_counts_as_the_dial_says(
    duplicates: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tied, other = grads("one dtype")[:2]
    (expected, norm), (got, joined) = both(
        [tied, other, tied], 0.5, monkeypatch, duplicates=duplicates
    )
    np.testing.assert_allclose(float(joined), float(norm), rtol=60 * 2.0**-24)
    assert got[0] is got[2]
    for one, two in zip(expected, got, strict=True):
        np.testing.assert_allclose(one, two, rtol=60 * 2.0**-24)


def test_each_dtype_is_one_array_where_starting_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    given = [g for g in grads("three dtypes") if g is not None]
    xp = arrays.namespace(*given)
    assert len(bundles.bundled(xp, given)[0][0]) == 4
    monkeypatch.setattr(bundles, "start_slowly", lambda xp, given: True)
    (joined,), part = bundles.bundled(xp, given)
    assert [tuple(whole.shape) for whole in joined] == [(7,), (8,), (2,)]
    assert [bits(g) for g in part(joined)] == [bits(g) for g in given]


# NumPy joins small arrays by itself.

SHAPES = [(3, 4), (5,), (), (0, 2), (2, 1, 3)]


def small(seed: int, dtypes: list[str]) -> list[Any]:
    rng = np.random.default_rng(seed)
    pairs = zip(SHAPES, dtypes, strict=True)
    return [np.asarray(rng.standard_normal(shape)).astype(dtype) for shape, dtype in pairs]


def one_by_one(monkeypatch: pytest.MonkeyPatch, function: Any) -> Any:
    with monkeypatch.context() as patch:
        patch.setattr(bundles, "start_slowly", lambda xp, given: False)
        return function()


def trajectory(
    optimizer: Any, dtypes: list[str], absent: dict[int, int], join: bool = False
) -> tuple[list[Any], dict[str, Any]]:
    params = small(1, dtypes)
    state = optimizer.init(params)
    for step in range(4):
        given: list[Any] = small(10 + step, dtypes)
        if step in absent:
            given[absent[step]] = None
        elif join and isinstance(params, bundles.Bundle):
            given = params.cut.part(params.cut.join(given))
        params, state = optimizer.update(params, given, state, lr=0.1 / (step + 1))
    return params, state


OPTIMIZERS = {
    "sgd": optimizers.sgd(0.1, momentum=0.9, nesterov=True, weight_decay=0.1),
    "adam": optimizers.adam(0.1, amsgrad=True),
    "adamw": optimizers.adamw(0.1, weight_decay=0.1, step_count="optimizer"),
    "rmsprop": optimizers.rmsprop(0.1, centered=True, momentum=0.5),
    "adagrad": optimizers.adagrad(0.1, lr_decay=0.1),
}
DTYPES = {"one dtype": ["float32"] * 5, "two": ["float64", "float32", "float64", *["float32"] * 2]}


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("dtypes", DTYPES)
@pytest.mark.parametrize("absent", [{}, {1: 0, 3: 4}], ids=["all present", "two absent"])
@pytest.mark.parametrize("join", [False, True], ids=["each gradient", "joined gradients"])
def test_an_optimizer_moves_joined_arrays_as_it_moves_each(
    name: str, dtypes: str, absent: dict[int, int], join: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run() -> Any:
        return trajectory(OPTIMIZERS[name], DTYPES[dtypes], absent, join)

    (params, state), (expected, known) = run(), one_by_one(monkeypatch, run)
    assert state.keys() == known.keys()
    assert state["step"] == known["step"]
    for key in known.keys() - {"step"}:
        for got, want in zip([*params, *state[key]], [*expected, *known[key]], strict=True):
            assert (got.dtype, got.shape) == (want.dtype, want.shape)
            assert got.tobytes() == want.tobytes()


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("dtypes", DTYPES)
def test_an_optimizer_moves_joined_arrays_of_another_library(
    name: str, dtypes: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run() -> Any:
        optimizer, kinds = OPTIMIZERS[name], DTYPES[dtypes]
        params = [torch.from_numpy(p) for p in small(1, kinds)]
        state = optimizer.init(params)
        for step in range(3):
            given: list[Any] = [torch.from_numpy(g) for g in small(10 + step, kinds)]
            if step == 1:
                given[2] = None
            params, state = optimizer.update(params, given, state, lr=0.1 / (step + 1))
        return params, state

    expected, known = run()
    monkeypatch.setattr(bundles, "start_slowly", lambda xp, given: True)
    params, state = run()
    assert state["step"] == known["step"]
    for key in known.keys() - {"step"}:
        for got, want in zip([*params, *state[key]], [*expected, *known[key]], strict=True):
            assert (got.dtype, got.shape) == (want.dtype, want.shape)
            # PyTorch may fuse a product and a sum in the body of a long array and not at its end: one
            # rounding less in a step's average, its square and its sum, over three steps fewer than 8 units.
            unit = torch.finfo(got.dtype).eps
            torch.testing.assert_close(got, want, rtol=8 * unit, atol=8 * unit)


def test_what_was_joined_is_joined_again_without_a_copy() -> None:
    first, state = trajectory(OPTIMIZERS["sgd"], DTYPES["one dtype"], {})
    assert isinstance(first, bundles.Bundle)
    xp = arrays.namespace(*first)
    ((whole,), (velocity,)), _ = bundles.bundled(xp, first, state["velocity"])
    assert whole is first.wholes[0]
    assert velocity is state["velocity"].wholes[0]


def test_an_entry_that_was_replaced_is_seen() -> None:
    params, state = trajectory(OPTIMIZERS["sgd"], DTYPES["one dtype"], {})
    params[1] = np.zeros(5, np.float32)
    still = [np.zeros_like(p) for p in params]
    state["velocity"] = [np.zeros_like(p) for p in params]
    moved, _ = optimizers.sgd(0.1, momentum=0.9).update(params, still, state)
    for got, want in zip(moved, params, strict=True):
        assert got.tobytes() == want.tobytes()


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy], ids=["copy", "deepcopy"])
def test_a_copy_is_a_plain_list(copied: Any) -> None:
    params, state = trajectory(OPTIMIZERS["sgd"], DTYPES["one dtype"], {})
    params = copied(params)
    params[0][...] = 7.0
    still = [np.zeros_like(p) for p in params]
    state["velocity"] = [np.zeros_like(p) for p in params]
    moved, _ = optimizers.sgd(0.1, momentum=0.9).update(params, still, state)
    assert type(params) is list
    assert (moved[0] == 7.0).all()


def test_what_is_written_into_an_entry_is_seen() -> None:
    params, state = trajectory(OPTIMIZERS["sgd"], DTYPES["one dtype"], {})
    params[0][...] = 7.0
    still = [np.zeros_like(p) for p in params]
    state["velocity"] = [np.zeros_like(p) for p in params]
    moved, _ = optimizers.sgd(0.1, momentum=0.9).update(params, still, state)
    assert (moved[0] == 7.0).all()


def test_large_arrays_are_left_as_they_are() -> None:
    given = [np.zeros(2**15, np.float32), np.zeros(1, np.float32)]
    (same,), _ = bundles.bundled(arrays.namespace(*given), given)
    assert same[0] is given[0]
    assert same[1] is given[1]


def test_a_gradient_that_does_not_fit_is_named_in_a_bundle_too() -> None:
    params, state = trajectory(OPTIMIZERS["sgd"], DTYPES["one dtype"], {})
    grads = small(3, DTYPES["one dtype"])
    grads[1] = np.zeros(6, np.float32)
    with pytest.raises(ValueError, match=r"params\[1\] and grads\[1\] must have the same shape"):
        OPTIMIZERS["sgd"].update(params, grads, state)
