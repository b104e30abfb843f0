"""The single runs of ``secateurs sweep``: train, prune, fine-tune, measure on the part that is given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

from .. import models, trainer
from ..clipping import clip_norm
from ..pruning import prune_fraction, prune_threshold
from ..regularization import prox_l1
from ..scores import magnitude
from ..trainer import Plan, State
from . import a1, a2, training
from .training import Data, Part

METHODS = (
    "dense", "one-shot", "one-shot, fine-tuned", "gradual", "gradual, fine-tuned", "iterative",
    "iterative, fine-tuned", "lottery ticket",
)  # fmt: skip
ROUNDS = 3
NO_CLIP = "none"
SGD: dict[str, Any] = {"operation": "optim.sgd", "lr": 0.1}


def network(name: str, shape: tuple[int, ...]) -> Any:
    """Return a model by name."""
    return a2.network(shape) if name == "cnn" else list(a1.MODEL)


def layers(name: str, wanted: str | None, shape: tuple[int, ...]) -> list[int | None]:
    """Return the weights that are pruned, one sweep each; None means all together."""
    count = len(training.weights_of(network(name, shape)))
    if wanted is None:
        return [None]
    if wanted == "each":
        return list(range(count))
    if not wanted.isdigit() or int(wanted) >= count:
        raise ValueError(f"--layer must be 'each' or one of 0 to {count - 1}, got {wanted!r}")
    return [int(wanted)]


@dataclass(frozen=True)
class Trial:
    """What a run is, but for its data and the candidate."""

    model: str
    what: str
    epochs: int
    seed: int
    layer: int | None
    amount: float = 0.9
    """The sparsity that all methods reach."""

    def measure(self, data: Data, part: Part, value: Any) -> dict[str, float]:
        """Train on the training part with a candidate; return accuracy on ``part`` and sparsity."""
        model = network(self.model, data.shape)
        chosen = training.weights_of(model)
        if self.layer is not None:
            chosen = [chosen[self.layer]]
        if self.what == "methods":
            params = METHOD_RUNS[value](self, data, model, chosen)
        elif self.what in ("clip", "lambda"):
            params = self._whole(data, model, chosen, value)
        else:
            dense = _dense(self, data, model)
            masks = _masks(dense, chosen, **{self.what: value})
            start = training.pruned(Plan(SGD), dense, masks)
            params = self.fit(model, Plan(SGD), start, data, 1).params
        zeros = sum(int((params[i] == 0).sum()) for i in chosen)
        total = sum(params[i].size for i in chosen)
        accuracy = training.share_right(model, params, part)
        return {"accuracy": accuracy, "sparsity": zeros / total}

    def fit(
        self,
        model: Any,
        plan: Plan,
        state: State,
        data: Data,
        stage: int,
        epochs: int | None = None,
    ) -> State:
        """Train for the epochs of one stage."""
        count = self.epochs if epochs is None else epochs
        return training.fit(
            model, plan, state, data.train, epochs=count, seed=1000 * stage + self.seed
        )

    def initial(self, model: Any, data: Data) -> list[Any]:
        """Return the initial parameters."""
        return models.initial_params(model, data.shape, self.seed)

    def _whole(self, data: Data, model: Any, chosen: list[int], value: Any) -> Any:
        """Train with a clip, or with proximal steps on the chosen weights; return the parameters."""
        plan, only = Plan(SGD), self.layer is not None
        if self.what == "clip" and value != NO_CLIP and not only:
            plan = Plan(SGD, clip={"operation": "clip.global_norm", "max_norm": value})
        state = trainer.start(plan, self.initial(model, data))
        for step in training.batches(data.train, 32, self.epochs, self.seed):
            ((x, labels),) = step
            y, backprop = models.forward(model, state.params, x)
            _, loss_gradient = models.loss(training.CROSS_ENTROPY, y, labels)
            _, grads = backprop(loss_gradient())
            if self.what == "clip" and value != NO_CLIP and only:
                clipped, _ = clip_norm([grads[i] for i in chosen], value)
                grads = _put(grads, chosen, clipped)
            state = trainer.train_step(plan, state, [grads])
            if self.what == "lambda":
                weights = [state.params[i] for i in chosen]
                shrunk = prox_l1(weights, value, step=SGD["lr"])
                state = replace(state, params=_put(state.params, chosen, shrunk))
        return state.params


def _put(tensors: Sequence[Any], chosen: list[int], new: Sequence[Any]) -> list[Any]:
    """Return the tensors with the chosen ones replaced."""
    among = dict(zip(chosen, new, strict=True))
    return [among.get(i, tensor) for i, tensor in enumerate(tensors)]


@lru_cache(maxsize=1)
def _cached(trial: Trial, identity: int, model: str) -> list[Any]:
    return []


def _dense(trial: Trial, data: Data, model: Any) -> list[Any]:
    """Return the dense network; candidates of one fold and seed start from the same one."""
    kept = _cached(replace(trial, layer=None), id(data), trial.model)
    if not kept:
        plan = Plan(SGD)
        start = trainer.start(plan, trial.initial(model, data))
        # with the data themselves, so that their identity is not given to others meanwhile
        kept += [trial.fit(model, plan, start, data, 0).params, data]
    return list(kept[0])


def _masks(params: Sequence[Any], chosen: list[int], **how: float) -> list[Any]:
    weights = [params[i] for i in chosen]
    score = magnitude(weights)
    if "amount" in how:
        masks, _ = prune_fraction(weights, score, amount=how["amount"], scope="global")
    else:
        # a threshold of 0 prunes nothing that is not zero already
        masks, _ = prune_threshold(weights, score, how["threshold"])
    return training.spread(masks, chosen, len(params))


def dense(trial: Trial, data: Data, model: Any, chosen: list[int]) -> Any:
    """Train for the whole budget, two stages, and prune nothing."""
    start = trainer.start(Plan(SGD), _dense(trial, data, model))
    return trial.fit(model, Plan(SGD), start, data, 1).params


def one_shot(trial: Trial, data: Data, model: Any, chosen: list[int]) -> Any:
    """Train for the whole budget, then prune and stop."""
    params = dense(trial, data, model, chosen)
    masks = _masks(params, chosen, amount=trial.amount)
    return training.pruned(Plan(SGD), params, masks).params


def one_shot_tuned(trial: Trial, data: Data, model: Any, chosen: list[int]) -> Any:
    """Train, prune once, fine-tune."""
    params = _dense(trial, data, model)
    start = training.pruned(Plan(SGD), params, _masks(params, chosen, amount=trial.amount))
    return trial.fit(model, Plan(SGD), start, data, 1).params


def gradual(trial: Trial, data: Data, model: Any, chosen: list[int], share: float) -> Any:
    """Train, then prune along a cubic schedule that takes a share of the second stage."""
    steps = trial.epochs * -(-len(data.train.labels) // 32)
    end = max(1, round(share * (steps - 1)))
    schedule = {
        "operation": "schedule.polynomial", "initial": 0.0, "final": trial.amount, "begin": 0,
        "end": end, "frequency": max(1, end // 20), "power": 3.0,
    }  # fmt: skip
    prune = {
        "score": "score.magnitude",
        "scope": "global",
        "parameters": chosen,
        "schedule": schedule,
    }
    plan = Plan(SGD, prune=prune)
    start = trainer.start(plan, _dense(trial, data, model))
    return trial.fit(model, plan, start, data, 1).params


def iterative(trial: Trial, data: Data, model: Any, chosen: list[int], *, last: bool = True) -> Any:
    """Prune the same share of what is left in each round; the rounds share the second stage."""
    params, state = _dense(trial, data, model), None
    left = (1 - trial.amount) ** (1 / ROUNDS)
    for step in range(1, ROUNDS + 1):
        params = params if state is None else state.params
        state = training.pruned(Plan(SGD), params, _masks(params, chosen, amount=1 - left**step))
        if last or step < ROUNDS:
            shared = trial.epochs // (ROUNDS if last else ROUNDS - 1)
            state = trial.fit(model, Plan(SGD), state, data, step, max(1, shared))
    assert state is not None
    return state.params


def lottery(trial: Trial, data: Data, model: Any, chosen: list[int]) -> Any:
    """Train, prune, put what is left back to its initial value, train again (Frankle & Carbin 2019)."""
    masks = _masks(_dense(trial, data, model), chosen, amount=trial.amount)
    start = training.pruned(Plan(SGD), trial.initial(model, data), masks)
    return trial.fit(model, Plan(SGD), start, data, 1).params


METHOD_RUNS: dict[str, Callable[[Trial, Data, Any, list[int]], Any]] = {
    "dense": dense,
    "one-shot": one_shot,
    "one-shot, fine-tuned": one_shot_tuned,
    "gradual": partial(gradual, share=1.0),
    "gradual, fine-tuned": partial(gradual, share=0.5),
    "iterative, fine-tuned": iterative,
    "iterative": partial(iterative, last=False),
    "lottery ticket": lottery,
}
