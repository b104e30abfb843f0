"""PyTorch Lightning: ``Trainer.fit``, with its clipping and its accumulation of micro-batches."""

from __future__ import annotations

import logging
import tempfile
import warnings
from typing import Any

import lightning
import torch
from torch import Tensor

from adapters._torch_arrays import to_numpy, to_torch
from adapters._torch_loop import make_optimizer
from adapters.base import Adapter, Unsupported

Gradients = list[Tensor | None]

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
warnings.simplefilter("ignore")

adapter = Adapter(
    "lightning",
    version=lightning.__version__,
    homepage="https://lightning.ai/docs/pytorch",
    to_native=to_torch,
    to_numpy=to_numpy,
)


class Module(lightning.pytorch.LightningModule):
    """The given parameters; the loss Σ w·g of a micro-batch has the given gradients."""

    def __init__(self, params: list[Tensor], optimizer: dict[str, Any]) -> None:
        """Hold copies of the parameters."""
        super().__init__()
        self.params = torch.nn.ParameterList([p.clone() for p in params])
        self.how = optimizer
        self.after: list[list[Tensor]] = []
        self.norms: list[Tensor] = []

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimiser."""
        return make_optimizer(list(self.params), self.how)

    def training_step(self, batch: Gradients, _: int) -> Tensor:
        """Return the loss of a micro-batch."""
        pairs = zip(self.params, batch, strict=True)
        return sum(((w * g).sum() for w, g in pairs if g is not None), torch.zeros(()))

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Note the norm before the clip."""
        given = [p.grad for p in self.params if p.grad is not None]
        self.norms.append(torch.nn.utils.get_total_norm(given))

    def on_train_batch_end(self, *_: Any) -> None:
        """Note the parameters after a step."""
        if len(self.norms) > len(self.after):
            self.after.append([p.detach().clone() for p in self.params])


def _clip(how: dict[str, Any] | None) -> dict[str, Any]:
    if how is None:
        return {}
    if how["operation"] == "clip.global_norm" and how.get("ord", 2) == 2:
        return {"gradient_clip_val": how["max_norm"], "gradient_clip_algorithm": "norm"}
    if how["operation"] == "clip.value" and how.get("min") == -how.get("max", float("nan")):
        return {"gradient_clip_val": how["max"], "gradient_clip_algorithm": "value"}
    raise Unsupported("a Trainer clips by the global 2-norm, or each value to [-c, c]")


@adapter.operation(
    "train.step",
    dtypes=("float64", "float32"),
    dialect={"clip.eps_at": "denominator", "clip.eps": 1e-6, "clip.negative_limit": "ignore"},
)
def train_step(
    params: list[Tensor],
    grads: list[list[Gradients]],
    masks: Any = None,
    *,
    optimizer: dict[str, Any],
    clip: dict[str, Any] | None = None,
    penalty: Any = None,
    accumulate: str = "mean",
    loss_scale: Any = 1.0,
) -> dict[str, Any]:
    """``Trainer.fit`` over the micro-batches, ``accumulate_grad_batches`` of them to a step."""
    if masks is not None or penalty is not None or loss_scale != 1.0:
        raise Unsupported("a Trainer has no masks and no penalties, and scales on GPUs only")
    if accumulate != "mean" or len({len(micro) for micro in grads}) != 1 or not grads[0]:
        raise Unsupported("a Trainer divides each loss by accumulate_grad_batches, a number >= 1")
    if isinstance(optimizer["lr"], list):
        raise Unsupported("a Trainer leaves learning rates to schedulers of PyTorch")
    if any(all(g is None for g in micro) for step in grads for micro in step):
        raise Unsupported("the loss of a batch depends on a parameter")
    module = Module(params, optimizer)
    trainer = lightning.Trainer(
        accelerator="cpu", max_epochs=1, accumulate_grad_batches=len(grads[0]),
        precision="64-true" if params and params[0].dtype == torch.float64 else "32-true",
        logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tempfile.gettempdir(), **_clip(clip),
    )  # fmt: skip
    batches = [micro for step in grads for micro in step]
    trainer.fit(module, torch.utils.data.DataLoader(batches, batch_size=None))
    skipped = torch.zeros(len(grads), dtype=torch.int32)
    return {"params": module.after, "total_norm": torch.stack(module.norms), "skipped": skipped}
