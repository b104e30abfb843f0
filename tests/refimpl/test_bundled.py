"""Gradients clipped as one long array, as on a GPU, beside gradients clipped one by one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from refimpl import arrays
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
        patch.setattr(arrays, "starts_slowly", lambda xp: True)
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
    assert len(arrays.bundled(xp, given)[0]) == 4
    monkeypatch.setattr(arrays, "starts_slowly", lambda xp: True)
    joined, part = arrays.bundled(xp, given)
    assert [tuple(whole.shape) for whole in joined] == [(7,), (8,), (2,)]
    assert [bits(g) for g in part(joined)] == [bits(g) for g in given]
