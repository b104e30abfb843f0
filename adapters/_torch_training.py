"""PyTorch's training loop, written as its documentation asks: GradScaler, autograd, clip, step, prune."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.utils import clip_grad_norm_, clip_grad_value_, get_total_norm
from torch.nn.utils import prune as pruning

from adapters.base import Adapter, Unsupported

Description = Mapping[str, Any]
Outputs = dict[str, Any]

OPTIMIZERS = {
    "optim.sgd": torch.optim.SGD,
    "optim.adam": torch.optim.Adam,
    "optim.adamw": torch.optim.AdamW,
    "optim.rmsprop": torch.optim.RMSprop,
    "optim.adagrad": torch.optim.Adagrad,
}
NAMES = {"initial_accumulator": "initial_accumulator_value"}
LOSSES: dict[str, Any] = {
    "loss.softmax_cross_entropy": functional.cross_entropy,
    "loss.mse": functional.mse_loss,
    "loss.binary_cross_entropy": functional.binary_cross_entropy_with_logits,
}
DIALECT = {"clip.eps_at": "denominator", "clip.eps": 1e-6, "clip.negative_limit": "flip_sign"}


def make_optimizer(parameters: list[Tensor], description: Description) -> torch.optim.Optimizer:
    """Return an optimiser of ``torch.optim``; the learning rate is set step by step."""
    options = {NAMES.get(k, k): v for k, v in description.items() if k not in ("operation", "lr")}
    if "beta1" in options or "beta2" in options:
        options["betas"] = (options.pop("beta1", 0.9), options.pop("beta2", 0.999))
    defaults = {} if description["operation"] == "optim.sgd" else {"weight_decay": 0.0}
    rate = _at(description["lr"], 0)
    return OPTIMIZERS[description["operation"]](parameters, lr=rate, **(defaults | options))


def clip_gradients(parameters: list[Tensor], description: Description | None) -> Tensor:
    """Clip the gradients in place; return their norm before that."""
    given = [p for p in parameters if p.grad is not None]
    total = get_total_norm([p.grad for p in given])
    if description is None:
        return total
    if description["operation"] == "clip.global_norm":
        return clip_grad_norm_(given, description["max_norm"], description.get("ord", 2))
    if description["operation"] == "clip.norm":
        for p in given:
            clip_grad_norm_([p], description["max_norm"], description.get("ord", 2))
        return total
    low, high = description.get("min"), description.get("max")
    if high is not None and low == -high:
        clip_grad_value_(given, high)
    else:
        for p in given:
            p.grad.clamp_(low, high)
    return total


def penalty_of(parameters: list[Tensor], description: Description) -> Tensor:
    """Return a penalty as part of the loss."""
    terms = [_penalty(p, description) for p in parameters]
    return sum(terms[1:], terms[0])


def _penalty(p: Tensor, description: Description) -> Tensor:
    strength = description.get("strength")
    if description["operation"] == "penalty.l1":
        return strength * p.abs().sum()
    if description["operation"] == "penalty.l2":
        return strength * p.square().sum()
    if description["operation"] == "penalty.elastic_net":
        return description["l1"] * p.abs().sum() + description["l2"] * p.square().sum()
    axis = description["axis"]
    groups = {a % p.ndim for a in (axis if isinstance(axis, list) else [axis])}
    rest = [a for a in range(p.ndim) if a not in groups]
    return strength * (torch.linalg.vector_norm(p, dim=rest) if rest else p.abs()).sum()


def train_step(
    params: list[Tensor],
    grads: list[list[list[Tensor | None]]],
    masks: list[Tensor | None] | None = None,
    *,
    optimizer: Description,
    clip: Description | None = None,
    penalty: Description | None = None,
    accumulate: str = "mean",
    loss_scale: Any = 1.0,
) -> Outputs:
    """A user's loop: backward of Σ w·g puts each given gradient where a model's would be."""
    if any(not micro for micro in grads):
        raise Unsupported("a loop over no micro-batches calls nothing of PyTorch")
    parameters = [torch.nn.Parameter(p.clone()) for p in params]
    stepper = make_optimizer(parameters, optimizer)
    after, norms, skipped = [], [], []
    for step, micro_batches in enumerate(grads):
        scaler = torch.amp.GradScaler("cpu", init_scale=_at(loss_scale, step))
        stepper.zero_grad()
        for index, micro in enumerate(micro_batches):
            products = [
                (w * g).sum() for w, g in zip(parameters, micro, strict=True) if g is not None
            ]
            share = len(micro_batches) if accumulate == "mean" else 1
            for product in products:
                (product / share).backward()
            if penalty is not None and index == 0:
                scaler.scale(penalty_of(parameters, penalty)).backward()
        _set_lr(stepper, optimizer, step)
        norms.append(_scaled_step(scaler, stepper, parameters, clip))
        skipped.append(scaler.get_scale() < _at(loss_scale, step))
        if masks is not None and not skipped[-1]:
            _mask(stepper, parameters, masks)
        after.append([p.detach().clone() for p in parameters])
    return {
        "params": after,
        "total_norm": torch.stack(norms),
        "skipped": torch.tensor(skipped, dtype=torch.int32),
    }


def _scaled_step(
    scaler: torch.amp.GradScaler, stepper: Any, parameters: list[Tensor], how: Description | None
) -> Tensor:
    # The scale is made when the first loss is scaled.
    scaler.scale(torch.zeros(()))
    scaler.unscale_(stepper)
    total = clip_gradients(parameters, how)
    scaler.step(stepper)
    scaler.update()
    return total.detach().clone()


def _mask(stepper: Any, parameters: list[Tensor], masks: list[Tensor | None]) -> None:
    for p, mask in zip(parameters, masks, strict=True):
        if mask is None:
            continue
        p.data.masked_fill_(~mask, 0.0)
        for value in stepper.state[p].values():
            if isinstance(value, Tensor) and value.shape == mask.shape:
                value.masked_fill_(~mask, 0.0)


class Held(torch.nn.Module):
    """A parameter in a module of its own, for ``torch.nn.utils.prune`` works on modules."""

    def __init__(self, weight: Tensor) -> None:
        """Hold a copy of a parameter."""
        super().__init__()
        self.weight = torch.nn.Parameter(weight.clone())

    def forward(self) -> Tensor:
        """Return the parameter, masked if it is pruned."""
        return self.weight


def _model(layers: Any, weights: list[Tensor], x: Tensor) -> Tensor:
    """Run a model; images are NHWC outside and NCHW inside each layer."""
    remaining = list(weights)
    for layer in layers:
        count, function = LAYERS[layer["operation"]]
        own, remaining = remaining[:count], remaining[count:]
        x = function(x, *own, {k: v for k, v in layer.items() if k != "operation"})
    return x


def _images(function: Any) -> Any:
    """Return a function of NHWC images from one of NCHW images."""

    def run(x: Tensor, *own: Any) -> Tensor:
        return function(x.permute(0, 3, 1, 2), *own).permute(0, 2, 3, 1)

    return run


def _conv2d(images: Tensor, weight: Tensor, bias: Tensor, options: Description) -> Tensor:
    return functional.conv2d(images, weight.permute(3, 2, 0, 1), bias)


def _batch_norm(x: Tensor, scale: Tensor, shift: Tensor, options: Description) -> Tensor:
    second = x.movedim(-1, 1)
    y = functional.batch_norm(second, None, None, scale, shift, True, eps=options.get("eps", 1e-5))
    return y.movedim(1, -1)


def _rnn(
    x: Tensor, weight: Tensor, recurrent: Tensor, bias: Tensor, options: Description
) -> Tensor:
    """``torch.nn.RNN``, stretch by stretch with the state detached in between."""
    layer = torch.nn.RNN(*weight.shape, batch_first=True, dtype=x.dtype)
    tensors = {"weight_ih_l0": weight.T, "weight_hh_l0": recurrent.T}
    tensors |= {"bias_ih_l0": bias, "bias_hh_l0": torch.zeros_like(bias)}
    states, state = [], x.new_zeros(1, len(x), weight.shape[1])
    for stretch in x.split(options.get("truncate") or x.shape[1], dim=1):
        found, state = torch.func.functional_call(layer, tensors, (stretch, state))
        states.append(found)
        state = state.detach()
    return torch.cat(states, dim=1)


def _dropout(x: Tensor, options: Description) -> Tensor:
    raise Unsupported("torch.nn.functional.dropout draws its own mask and takes none")


LAYERS: dict[str, tuple[int, Any]] = {
    "layer.dense": (2, lambda x, weight, bias, _: functional.linear(x, weight.T, bias)),
    "layer.conv2d": (2, _images(_conv2d)),
    "layer.relu": (0, lambda x, _: functional.relu(x)),
    "layer.leaky_relu": (0, lambda x, options: functional.leaky_relu(x, options["slope"])),
    "layer.sigmoid": (0, lambda x, _: torch.sigmoid(x)),
    "layer.tanh": (0, lambda x, _: torch.tanh(x)),
    "layer.max_pool2d": (
        0, _images(lambda x, o: functional.max_pool2d(x, o["window"], o.get("stride"))),
    ),
    "layer.avg_pool2d": (
        0, _images(lambda x, o: functional.avg_pool2d(x, o["window"], o.get("stride"))),
    ),
    "layer.flatten": (0, lambda x, _: torch.flatten(x, 1)),
    "layer.dropout": (0, _dropout),
    "layer.batch_norm": (2, _batch_norm),
    "layer.rnn": (3, _rnn),
}  # fmt: skip


def _sparsity(schedule: Description, step: int) -> float | None:
    begin, end = schedule["begin"], schedule["end"]
    if not begin <= step <= end or ((step - begin) % schedule["frequency"] and step != end):
        return None
    left = (1 - (step - begin) / (end - begin)) ** schedule["power"]
    return schedule["final"] + (schedule["initial"] - schedule["final"]) * left


def _prune(modules: list[Held], plan: Description, step: int) -> None:
    """Prune the smallest weights of the chosen modules together, up to the schedule's sparsity."""
    sparsity = _sparsity(plan["schedule"], step)
    if sparsity is None:
        return
    chosen = [modules[i] for i in plan["parameters"]]
    for module in chosen:
        module()  # the masked weight is made anew by the forward pass, not by the optimiser's step
    total = sum(m.weight.numel() for m in chosen)
    already = sum(int((m.weight_mask == 0).sum()) for m in chosen if pruning.is_pruned(m))
    pruning.global_unstructured(
        [(m, "weight") for m in chosen],
        pruning.L1Unstructured,
        amount=round(sparsity * total) - already,
    )


def train_trajectory(
    params: list[Tensor],
    x: Any,
    targets: Any,
    dropout: Any = None,
    *,
    model: Any,
    loss: Description,
    optimizer: Description,
    clip: Description | None = None,
    penalty: Description | None = None,
    prune: Description | None = None,
    accumulate: str = "mean",
) -> Outputs:
    """A user's training loop over a small model, with autograd and ``torch.nn.utils.prune``."""
    modules = [Held(p) for p in params]
    parameters = [m.weight for m in modules]
    stepper = make_optimizer(parameters, optimizer)
    record: dict[str, list[Any]] = {
        n: [] for n in ("loss", "grads", "total_norm", "params", "masks")
    }
    for step, (xs, ts) in enumerate(zip(x, targets, strict=True)):
        stepper.zero_grad()
        share = len(xs) if accumulate == "mean" else 1
        losses = []
        for images, labels in zip(xs, ts, strict=True):
            y = _model(model, [m() for m in modules], images)
            measure = LOSSES[loss["operation"]]
            value = measure(y, labels, reduction=loss.get("reduction", "mean")) / share
            value.backward()
            losses.append(value.detach())
        if penalty is not None:
            penalty_of(parameters, penalty).backward()
        record["loss"].append(sum(losses[1:], losses[0]))
        record["grads"].append([p.grad.clone() for p in parameters])
        record["total_norm"].append(clip_gradients(parameters, clip).clone())
        _set_lr(stepper, optimizer, step)
        stepper.step()
        if prune is not None:
            _prune(modules, prune, step)
        record["params"].append([m().detach().clone() for m in modules])
        record["masks"].append([_mask_of(m) for m in modules])
    outputs: Outputs = {
        **record,
        "loss": torch.stack(record["loss"]),
        "total_norm": torch.stack(record["total_norm"]),
    }
    return outputs if prune is not None else {k: v for k, v in outputs.items() if k != "masks"}


def _mask_of(module: Held) -> Tensor | None:
    return module.weight_mask.bool() if pruning.is_pruned(module) else None


def _set_lr(stepper: Any, description: Description, step: int) -> None:
    for group in stepper.param_groups:
        group["lr"] = _at(description["lr"], step)


def _at(value: Any, step: int) -> float:
    return float(value[step] if isinstance(value, list) else value)


def register(adapter: Adapter) -> None:
    """Register the loops."""
    wide = ("float64", "float32")
    adapter.operation("train.step", wide, DIALECT)(train_step)
    masked = {**DIALECT, "prune.gradient": "masked"}
    adapter.operation("train.trajectory", wide, masked)(train_trajectory)
