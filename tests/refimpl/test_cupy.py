"""refimpl on a GPU. Without CuPy and a CUDA device these tests say that they are skipped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conformance import checking
from refimpl import clipping, models, optimizers, pruning, scores, trainer
from refimpl.__main__ import main
from refimpl.backends import Unavailable, backend


@pytest.fixture(scope="module")
def gpu() -> Any:
    try:
        return backend("cupy")
    except Unavailable as error:
        pytest.skip(str(error))


def arrays(gpu: Any) -> list[Any]:
    rng = np.random.default_rng(3)
    shapes = ((7, 5), (11,), (2, 3, 3))
    return [gpu.to_device(rng.normal(size=shape).astype(np.float32)) for shape in shapes]


@pytest.mark.parametrize("model", ["mlp", "cnn"])
@pytest.mark.parametrize(
    "options",
    [
        ["--clip", "global_norm:0.5", "--momentum", "0.9"],
        ["--optimizer", "adam", "--lr", "0.002", "--prune", "0.8"],
    ],
    ids=["clip", "prune"],
)
def test_a_run_takes_the_same_steps_as_on_numpy(
    model: str, options: list[str], gpu: Any, tmp_path: Path
) -> None:
    losses = {}
    for name in ("numpy", "cupy"):
        trace = tmp_path / f"{name}.jsonl"
        command = ["train", "--model", model, "--epochs", "1", "--backend", name, *options]
        assert main([*command, "--batch-size", "256", "--trace", str(trace), "--quiet"]) == 0
        losses[name] = [json.loads(line)["loss"] for line in trace.read_text().splitlines()]
    np.testing.assert_allclose(losses["numpy"], losses["cupy"], rtol=1e-3)


def test_a_checkpoint_goes_from_the_gpu_to_numpy(gpu: Any, tmp_path: Path) -> None:
    kept = tmp_path / "state.safetensors"
    begin = ["train", "--epochs", "2", "--quiet", "--checkpoint", str(kept)]
    assert main([*begin, "--backend", "cupy", "--stop-after", "1"]) == 0
    assert main([*begin, "--backend", "numpy", "--resume", str(kept)]) == 0


def test_results_stay_on_the_device(gpu: Any) -> None:
    import cupy

    grads = arrays(gpu)
    clipped, norm = clipping.clip_global_norm(grads, 0.5)
    masks = pruning.prune_fraction(grads, scores.magnitude(grads), amount=0.5)[1]
    optimizer = optimizers.adam(lr=0.1)
    moved, _ = optimizer.update(grads, clipped, optimizer.init(grads))
    assert all(type(each) is cupy.ndarray for each in [*clipped, norm, *masks, *moved])


def test_clip_mask_and_step_copy_nothing_to_the_host(gpu: Any) -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("PyTorch, whose profiler counts the copies, has no CUDA here")
    import cupy

    params, grads = arrays(gpu), [2 * array for array in arrays(gpu)]
    masks = [array > 0 for array in params]
    optimizer = optimizers.adam(lr=0.1)
    state = optimizer.init(params)

    def step(read: bool = False) -> None:
        clipped, norm = clipping.clip_global_norm(grads, 0.5)
        masked = [pruning.apply_mask(g, mask) for g, mask in zip(clipped, masks, strict=True)]
        optimizer.update(params, masked, state)
        if read:
            float(norm)

    def copies(read: bool) -> int:
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            step(read)
            cupy.cuda.Device().synchronize()
        return sum("DtoH" in event.name for event in profile.events())

    step()  # constants are made, and kernels compiled, once
    assert copies(read=True) == 1
    assert copies(read=False) == 0


def test_a_training_step_keeps_its_parameters_on_the_device(gpu: Any) -> None:
    import cupy

    model: list[dict[str, Any]] = [
        {"operation": "layer.dense", "units": 4},
        {"operation": "layer.tanh"},
        {"operation": "layer.dense", "units": 3},
    ]
    plan = trainer.Plan(
        {"operation": "optim.sgd", "lr": 0.1, "momentum": 0.9},
        clip={"operation": "clip.global_norm", "max_norm": 0.3},
    )
    params = [gpu.to_device(p) for p in models.initial_params(model, (6,), seed=1)]
    rng = np.random.default_rng(5)
    batch = (
        gpu.to_device(rng.normal(size=(8, 6)).astype(np.float32)),
        gpu.to_device(np.arange(8) % 3),
    )
    state = trainer.train(
        model,
        {"operation": "loss.softmax_cross_entropy"},
        plan,
        trainer.start(plan, params),
        [[batch]] * 3,
    )
    assert all(type(p) is cupy.ndarray for p in state.params)


def test_one_function_can_be_checked_with_cupy_arrays(gpu: Any) -> None:
    def right(grads: Any, max_norm: float) -> Any:
        import cupy

        norm = cupy.sqrt(sum(cupy.sum(g.astype(cupy.float64) ** 2) for g in grads))
        factor = cupy.minimum(1.0, max_norm / norm)
        return [(g * factor).astype(g.dtype) for g in grads], norm.astype(cupy.float32)

    def wrong(grads: Any, max_norm: float) -> Any:
        clipped, norm = right(grads, max_norm)
        return [-g for g in clipped], norm

    checking.check("clip.global_norm", right, "cupy", cases=["two-tensors-f32"])
    with pytest.raises(AssertionError):
        checking.check("clip.global_norm", wrong, "cupy", cases=["two-tensors-f32"])
