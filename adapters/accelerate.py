"""Hugging Face Accelerate: a training loop as its documentation writes it, on one CPU process."""

from __future__ import annotations

from typing import Any

import torch
from accelerate import Accelerator, __version__
from accelerate.state import AcceleratorState, GradientState, PartialState
from torch import Tensor

from adapters._torch_arrays import to_numpy, to_torch
from adapters._torch_loop import make_optimizer
from adapters.base import Adapter, Unsupported

adapter = Adapter(
    "accelerate",
    version=__version__,
    homepage="https://huggingface.co/docs/accelerate",
    to_native=to_torch,
    to_numpy=to_numpy,
)


class Model(torch.nn.Module):
    """The given parameters; the loss Σ w·g has the given gradients."""

    def __init__(self, params: list[Tensor]) -> None:
        """Hold copies of the parameters."""
        super().__init__()
        self.weights = torch.nn.ParameterList([p.clone() for p in params])

    def forward(self, grads: list[Tensor | None]) -> Tensor:
        """Return the loss of one micro-batch."""
        pairs = zip(self.weights, grads, strict=True)
        # A parameter without a gradient is one that the loss does not depend on.
        return sum(((w * g).sum() for w, g in pairs if g is not None), torch.zeros(()))


@adapter.operation(
    "train.step",
    dtypes=("float64", "float32"),
    dialect={"clip.eps_at": "denominator", "clip.eps": 1e-6, "clip.negative_limit": "flip_sign"},
)
def train_step(
    params: list[Tensor],
    grads: list[list[list[Tensor | None]]],
    masks: Any = None,
    *,
    optimizer: dict[str, Any],
    clip: dict[str, Any] | None = None,
    penalty: Any = None,
    accumulate: str = "mean",
    loss_scale: Any = 1.0,
) -> dict[str, Any]:
    """``Accelerator.accumulate``, ``backward`` and ``clip_grad_norm_``; the clip on the last micro-batch."""
    if masks is not None or penalty is not None or loss_scale != 1.0:
        raise Unsupported("Accelerate has no masks and no penalties, and scales on GPUs only")
    if accumulate != "mean" or len({len(micro) for micro in grads}) != 1 or not grads[0]:
        raise Unsupported(
            "Accelerate divides each loss by gradient_accumulation_steps, a number >= 1"
        )
    if isinstance(optimizer["lr"], list):
        raise Unsupported("Accelerate leaves learning rates to schedulers of PyTorch")
    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()  # one process serves many requests
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=len(grads[0]))
    model = Model(params)
    model, stepper = accelerator.prepare(model, make_optimizer(list(model.parameters()), optimizer))
    after, norms = [], []
    for micro_batches in grads:
        for micro in micro_batches:
            with accelerator.accumulate(model):
                loss = model(micro)
                if loss.requires_grad:
                    accelerator.backward(loss)
                if accelerator.sync_gradients:
                    norms.append(_clip(accelerator, model, clip))
                stepper.step()
                stepper.zero_grad()
        after.append([p.detach().clone() for p in model.parameters()])
    skipped = torch.zeros(len(grads), dtype=torch.int32)
    return {"params": after, "total_norm": torch.stack(norms), "skipped": skipped}


def _clip(accelerator: Accelerator, model: Model, how: dict[str, Any] | None) -> Tensor:
    if how is not None and how["operation"] == "clip.global_norm":
        limit, order = how["max_norm"], how.get("ord", 2)
        return accelerator.clip_grad_norm_(model.parameters(), limit, order).detach().clone()
    total = torch.nn.utils.get_total_norm(
        [p.grad for p in model.parameters() if p.grad is not None]
    )
    if how is None:
        return total
    if how["operation"] != "clip.value" or how.get("min") != -how.get("max", float("nan")):
        raise Unsupported("Accelerate clips by the global norm, or each value to [-c, c]")
    accelerator.clip_grad_value_(model.parameters(), how["max"])
    return total
