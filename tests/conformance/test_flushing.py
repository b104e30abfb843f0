"""The rule for libraries that flush: what is only copied or selected may keep its bits, and nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from conformance.formats import encode
from conformance.judge import judge
from conformance.operations import load
from conformance.runner import select

FLUSH = {"subnormals": "flush"}
SINGLE = {"subnormals": "flush_float32"}


def status(case_id: str, setting: dict[str, Any], **outputs: Any) -> tuple[str, bool | None]:
    operation_id, _, name = case_id.partition("/")
    (case,) = select([operation_id], [name])
    encoded = {
        key: [encode(v) for v in value] if isinstance(value, list) else encode(value)
        for key, value in outputs.items()
    }
    verdict = judge(load(operation_id), case, setting, {"outputs": encoded})
    return verdict.status, verdict.canonical


def array(*values: float, dtype: Any = np.float32) -> Any:
    return np.array(values, dtype)


# clip.norm/subnormal-f32: [1e-45, -1e-40, 2] stays, its norm being below the limit.
@pytest.mark.parametrize(
    ("grads", "canonical", "flushing"),
    [
        ((1e-45, -1e-40, 2.0), "passed", "passed"),
        ((0.0, -0.0, 2.0), "failed", "passed"),
        ((0.0, -1e-40, 2.0), "failed", "passed"),
        ((3e-45, -0.0, 2.0), "failed", "failed"),  # a subnormal that nobody gave
        ((0.0, 0.0, 2.0), "failed", "failed"),  # the zero has lost its sign
        ((0.0, -0.0, 0.0), "failed", "failed"),
    ],
)
def test_a_gradient_that_is_not_scaled(
    grads: tuple[float, ...], canonical: str, flushing: str
) -> None:
    answer = {"grads": [array(*grads)], "norms": [np.array(2.0, np.float32)]}
    assert status("clip.norm/subnormal-f32", {}, **answer)[0] == canonical
    for setting in (FLUSH, SINGLE):
        assert status("clip.norm/subnormal-f32", setting, **answer)[0] == flushing


def test_keeping_the_bits_is_canonical_also_for_who_flushes() -> None:
    answer = {"grads": [array(1e-45, -1e-40, 2.0)], "norms": [np.array(2.0, np.float32)]}
    assert status("clip.norm/subnormal-f32", FLUSH, **answer) == ("passed", True)


def test_a_kept_weight_may_keep_its_bits_where_the_mask_is_that_of_who_flushes() -> None:
    (case,) = select(["prune.fraction"], ["subnormal-scores-f32"])
    operation = load("prune.fraction")
    (given,) = case.inputs["weights"]
    flushed = operation.expect(case, FLUSH).outputs
    mask = flushed["masks"][0].tensor
    kept = np.where(mask, given, np.float32(0))
    assert (kept != flushed["weights"][0].tensor).any()
    assert (
        status("prune.fraction/subnormal-scores-f32", FLUSH, weights=[kept], masks=[mask])[0]
        == "passed"
    )
    # a pruned weight is +0.0, whatever its bits were
    loose = np.where(~mask, abs(given), kept)
    assert (loose != kept).any()
    assert (loose[~mask] < 1e-38).all()
    assert (
        status("prune.fraction/subnormal-scores-f32", FLUSH, weights=[loose], masks=[mask])[0]
        == "failed"
    )


def test_float32_alone_is_flushed_by_a_compiler_of_single_precision() -> None:
    answer = {"grads": [array(0.0, -0.0, 2.0, dtype=np.float64)]}
    (case,) = select(["clip.norm"], ["subnormal-f64"])
    canonical = load("clip.norm").expect(case).outputs
    answer["norms"] = [leaf.tensor for leaf in canonical["norms"]]
    answer["grads"] = [
        np.where(abs(leaf.tensor) < 1e-307, 0 * leaf.tensor, leaf.tensor)
        for leaf in canonical["grads"]
    ]
    assert status("clip.norm/subnormal-f64", FLUSH, **answer)[0] == "passed"
    assert status("clip.norm/subnormal-f64", SINGLE, **answer)[0] == "failed"


def test_a_mask_that_comes_from_the_weights_themselves_keeps_their_bits() -> None:
    name = "prune.structured/cubes-of-subnormals-f32"
    (case,) = select(["prune.structured"], ["cubes-of-subnormals-f32"])
    given = case.inputs["weights"]
    mask = load("prune.structured").expect(case, FLUSH).outputs["mask"].tensor
    kept = np.where(mask, given, np.float32(0))
    assert (kept > 0).any()
    assert status(name, FLUSH, weights=kept, mask=mask)[0] == "passed"
    assert status(name, FLUSH, weights=given, mask=mask)[0] == "failed"
    assert status(name, FLUSH, weights=kept, mask=~mask)[0] == "failed"
