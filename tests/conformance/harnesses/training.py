"""A harness written from the contract alone: clips, SGD, Adam and the training step in plain Python.

``training.py [--mistake NAME] [--round output|step]``: numbers are Python floats, that is double precision.
A tensor is rounded to its dtype where it is answered, or after every step, parameters and state alike.
"""

import argparse
import json
import math
import platform
import struct
import sys

import plain

MISTAKES = {
    "per-tensor": "each tensor is clipped by its own norm, which is called global",
    "max-for-min": "the factor is max(1, c/n); an element is moved away from its bound",
    "range-not-halved": "range c is taken for [-c, c]",
    "clip-before-unscale": "the scaled gradient is clipped",
    "clip-each": "every micro-batch is clipped before they are combined",
    "sum-for-mean": "micro-batches are added up",
    "penalty-after-clip": "the penalty's gradient escapes the clip",
    "masked-gradients-only": "the mask is laid on gradients; momentum moves pruned weights on",
    "skip-counted": "a skipped step advances the step count",
    "skip-forgotten": "a gradient that is not finite is taken",
    "eps-inside-root": "Adam divides by sqrt(v + eps)",
    "nesterov-ignored": "the option does nothing",
    "rate-frozen": "the first learning rate stays",
}


# --- tensors: {"dtype", "shape", "bits"} <-> values --------------------------------------------


class Tensor:
    """Values in a flat list, and what they are the values of."""

    def __init__(self, values, dtype, shape):
        self.values, self.dtype, self.shape = values, dtype, shape

    def like(self, values):
        return Tensor(list(values), self.dtype, self.shape)

    def rounded(self):
        return self.like(plain.decode(self.written()))

    def written(self):
        return plain.encode(self.values, self.dtype, self.shape)


def read(tree):
    if tree is None:
        return None
    if isinstance(tree, list):
        return [read(branch) for branch in tree]
    if tree["dtype"] == "bool":
        return Tensor([word == "1" for word in tree["bits"].split()], "bool", tree["shape"])
    need(tree["dtype"] in plain.FORMATS, f"real floats are needed, not {tree['dtype']}")
    return Tensor(plain.decode(tree), tree["dtype"], tree["shape"])


def written(tree):
    if isinstance(tree, list):
        return [written(branch) for branch in tree]
    return None if tree is None else tree.written()


def divide(a, b):
    """IEEE division, which Python's operator is not at b = 0."""
    if b != 0:
        return a / b
    return math.nan if a == 0 or math.isnan(a) else math.copysign(math.inf, a)


# --- parameters of an operation ----------------------------------------------------------------


def numbers(value):
    return [float(v) for v in value] if isinstance(value, list) else [float(value)]


def need(condition, text):
    if not condition:
        raise ValueError(text)


def in_range(params, name, default, low=0.0, below=math.inf):
    value = params.get(name, default)
    for v in numbers(value):
        need(math.isfinite(v) and low <= v < below, f"{name} is out of range: {v}")
    return value


def at(value, step):
    """A number, or a list with one number per step."""
    return float(value[step] if isinstance(value, list) else value)


# --- clipping ----------------------------------------------------------------------------------


def bounds(params):
    low, high, width = (params.get(name) for name in ("min", "max", "range"))
    if width is not None:
        need(low is None and high is None, "range excludes min and max")
        half = 1 if MISTAKE == "range-not-halved" else 2
        low, high = -float(width) / half, float(width) / half
    need(low is not None or high is not None, "a bound is missing")
    low = -math.inf if low is None else float(low)
    high = math.inf if high is None else float(high)
    need(low <= high, "min must be <= max, and neither NaN")
    return low, high


def limited(grad, params):
    # The bounds take part in the dtype of the gradient.
    low, high = Tensor(bounds(params), grad.dtype, [2]).rounded().values
    if MISTAKE == "max-for-min":
        return grad.like(max(max(x, low), high) for x in grad.values)
    return grad.like(low if x < low else high if x > high else x for x in grad.values)


def clip_value(grads, params):
    bounds(params)
    return [None if g is None else limited(g, params) for g in grads]


def norm(grads, order):
    return plain.norm_of([x for g in grads if g is not None for x in g.values], order)


def clip_by_norm(grads, params, whole):
    limit, order = float(params["max_norm"]), float(params.get("ord", 2))
    need(limit >= 0, f"max_norm must be at least 0, got {limit}")
    need(order > 0, f"ord must be greater than 0, got {order}")
    if MISTAKE == "per-tensor":
        whole = False
    how = "max-for-min" if MISTAKE == "max-for-min" else ""
    total = norm(grads, order)
    return [
        g and g.like(plain.scaled(g.values, total if whole else norm([g], order), limit, how))
        for g in grads
    ]


def clip(grads, params):
    if params is None:
        return grads
    if params["operation"] == "clip.value":
        return clip_value(grads, params)
    return clip_by_norm(grads, params, whole=params["operation"] == "clip.global_norm")


# --- optimisers --------------------------------------------------------------------------------


class Sgd:
    def __init__(self, params):
        self.lr = in_range(params, "lr", None)
        self.momentum = float(in_range(params, "momentum", 0.0))
        self.dampening = float(in_range(params, "dampening", 0.0, low=-math.inf))
        self.decay = float(in_range(params, "weight_decay", 0.0))
        self.nesterov = bool(params.get("nesterov", False))
        if self.nesterov:
            need(self.momentum > 0 and self.dampening == 0, "nesterov needs momentum, no dampening")
            self.nesterov = MISTAKE != "nesterov-ignored"

    def step(self, w, g, state, lr):
        state["t"] = state.get("t", 0) + 1
        g = [x + self.decay * y if self.decay else x for x, y in zip(g, w, strict=True)]
        if not self.momentum:
            return [x - lr * y for x, y in zip(w, g, strict=True)]
        buffer, kept = state.get("buffer"), 1 - self.dampening
        if buffer is None:
            buffer = g
        else:
            buffer = [self.momentum * b + kept * x for b, x in zip(buffer, g, strict=True)]
        state["buffer"] = buffer
        if self.nesterov:
            return [x - lr * (y + self.momentum * b) for x, y, b in zip(w, g, buffer, strict=True)]
        return [x - lr * b for x, b in zip(w, buffer, strict=True)]


class Adam:
    def __init__(self, params, decoupled=False):
        self.decoupled = decoupled
        self.lr = in_range(params, "lr", None)
        self.beta1 = float(in_range(params, "beta1", 0.9, below=1.0))
        self.beta2 = float(in_range(params, "beta2", 0.999, below=1.0))
        self.eps = float(in_range(params, "eps", 1e-8))
        self.decay = float(in_range(params, "weight_decay", 0.01 if decoupled else 0.0))
        self.amsgrad = bool(params.get("amsgrad", False))

    def step(self, w, g, state, lr):
        t = state["t"] = state.get("t", 0) + 1
        zeros = [0.0] * len(w)
        if self.decay and self.decoupled:
            w = [x * (1 - lr * self.decay) for x in w]
        elif self.decay:
            g = [x + self.decay * y for x, y in zip(g, w, strict=True)]
        m = self.average(self.beta1, state.get("m", zeros), g)
        v = self.average(self.beta2, state.get("v", zeros), [x * x for x in g])
        state["m"], state["v"] = m, v
        if self.amsgrad:
            # max() would lose a NaN that stands second.
            past = state.get("largest", zeros)
            v = [b if math.isnan(b) or b > a else a for a, b in zip(past, v, strict=True)]
            state["largest"] = v
        c1, c2 = 1 - self.beta1**t, 1 - self.beta2**t
        return [x - lr * self.ratio(a / c1, b / c2) for x, a, b in zip(w, m, v, strict=True)]

    def average(self, beta, old, new):
        return [beta * a + (1 - beta) * b for a, b in zip(old, new, strict=True)]

    def ratio(self, m, v):
        if MISTAKE == "eps-inside-root":
            return divide(m, math.sqrt(v + self.eps))
        return divide(m, math.sqrt(v) + self.eps)


OPTIMIZERS = {
    "optim.sgd": Sgd,
    "optim.adam": Adam,
    "optim.adamw": lambda params: Adam(params, decoupled=True),
}


def update(optimizer, params, grads, states, step):
    lr = at(optimizer.lr, 0 if MISTAKE == "rate-frozen" else step)
    for w, g in zip(params, grads, strict=True):
        need(g is None or g.shape == w.shape, "a gradient must have the shape of its parameter")
    moved = [
        w if g is None else w.like(optimizer.step(w.values, g.values, state, lr))
        for w, g, state in zip(params, grads, states, strict=True)
    ]
    if ROUND != "step":
        return moved
    for w, state in zip(moved, states, strict=True):
        for name in state.keys() - {"t"}:
            state[name] = w.like(state[name]).rounded().values
    return [w.rounded() for w in moved]


def optimize(inputs, params, operation):
    optimizer = OPTIMIZERS[operation](params)
    weights = read(inputs["params"])
    states, steps = [{} for _ in weights], []
    for step, grads in enumerate(read(inputs["grads"])):
        weights = update(optimizer, weights, grads, states, step)
        steps.append(weights)
    return {"params": written(steps)}


# --- the training step -------------------------------------------------------------------------


def combine(micro, how):
    combined = []
    for parts in zip(*micro, strict=True):
        given = [g for g in parts if g is not None]
        # One that is absent counts as zero, so the mean is over all micro-batches.
        count = len(parts) if how == "mean" and MISTAKE != "sum-for-mean" else 1
        sums = [sum(xs) / count for xs in zip(*(g.values for g in given), strict=True)]
        combined.append(given[0].like(sums) if given else None)
    return combined


def divided(grads, scale):
    return [g and g.like(x / scale for x in g.values) for g in grads]


def penalized(grads, weights, penalty):
    if penalty is None:
        return grads
    strength, joined = float(penalty["strength"]), []
    for g, w in zip(grads, weights, strict=True):
        if penalty["operation"] == "penalty.l1":
            extra = [strength * ((x > 0) - (x < 0)) for x in w.values]
        else:
            extra = [2 * strength * x for x in w.values]
        joined.append(w.like(map(sum, zip(g.values, extra, strict=True)) if g else extra))
    return joined


def masked(tensor, mask):
    if tensor is None or mask is None:
        return tensor
    return tensor.like(
        x if keep else 0.0 for x, keep in zip(tensor.values, mask.values, strict=True)
    )


class Training:
    """Parameters and optimiser state, from step to step."""

    def __init__(self, inputs, params):
        self.weights = read(inputs["params"])
        self.masks = read(inputs.get("masks")) or [None] * len(self.weights)
        self.states = [{} for _ in self.weights]
        self.optimizer = OPTIMIZERS[params["optimizer"]["operation"]](params["optimizer"])
        self.clip, self.penalty = params.get("clip"), params.get("penalty")
        self.scale = in_range(params, "loss_scale", 1.0)
        need(all(s > 0 for s in numbers(self.scale)), "loss_scale must be greater than 0")
        self.how = params.get("accumulate", "mean")
        need(self.how in ("mean", "sum"), "accumulate is mean or sum")

    def step(self, step, micro):
        need(micro, "a step needs a micro-batch")
        scale = at(self.scale, step)
        if MISTAKE == "clip-each":
            micro, scale = [clip(divided(grads, scale), self.clip) for grads in micro], 1.0
        grads = combine(micro, self.how)
        if MISTAKE == "clip-before-unscale":
            grads = clip(grads, self.clip)
        grads = divided(grads, scale)
        if MISTAKE != "penalty-after-clip":
            grads = penalized(grads, self.weights, self.penalty)
        of_whole = self.clip and self.clip["operation"] == "clip.global_norm"
        total = norm(grads, float(self.clip.get("ord", 2)) if of_whole else 2.0)
        finite = MISTAKE == "skip-forgotten" or all(
            math.isfinite(x) for g in grads if g for x in g.values
        )
        if finite:
            if MISTAKE not in ("clip-before-unscale", "clip-each"):
                grads = clip(grads, self.clip)
            if MISTAKE == "penalty-after-clip":
                grads = penalized(grads, self.weights, self.penalty)
            self.take(grads, step)
        elif MISTAKE == "skip-counted":
            for state in self.states:
                state["t"] = state.get("t", 0) + 1
        return total, 0 if finite else 1

    def take(self, grads, step):
        if MISTAKE == "masked-gradients-only":
            grads = list(map(masked, grads, self.masks))
        self.weights = update(self.optimizer, self.weights, grads, self.states, step)
        if MISTAKE == "masked-gradients-only":
            return
        self.weights = list(map(masked, self.weights, self.masks))
        for w, state, mask in zip(self.weights, self.states, self.masks, strict=True):
            for name in state.keys() - {"t"}:
                state[name] = masked(w.like(state[name]), mask).values


def train(inputs, params):
    training, after, norms, skipped = Training(inputs, params), [], [], []
    for step, micro in enumerate(read(inputs["grads"])):
        total, skip = training.step(step, micro)
        after.append(training.weights)
        norms.append(total)
        skipped.append(skip)
    wide = "float64" if any(w.dtype == "float64" for w in training.weights) else "float32"
    words = " ".join(struct.pack(">i", flag).hex() for flag in skipped)
    return {
        "params": written(after),
        "total_norm": Tensor(norms, wide, [len(norms)]).written(),
        "skipped": {"dtype": "int32", "shape": [len(skipped)], "bits": words},
    }


def outputs(operation, inputs, params):
    if operation == "clip.global_norm":
        limit, order = float(params["max_norm"]), float(params["ord"])
        return plain.clip(inputs["grads"], limit, order, MISTAKE)
    if operation == "clip.value":
        return {"grads": written(clip_value(read(inputs["grads"]), params))}
    return (
        train(inputs, params) if operation == "train.step" else optimize(inputs, params, operation)
    )


def understood(params):
    """Say whether the penalty and the optimiser of a training step are among those above."""
    parts = [params.get("penalty") or {}, params.get("optimizer") or {}]
    known = {None, "penalty.l1", "penalty.l2", *OPTIMIZERS}
    return all(part.get("operation") in known for part in parts)


def main():
    operations = ("clip.global_norm", "clip.value", "train.step", *OPTIMIZERS)
    for line in sys.stdin:
        request = json.loads(line)
        if request["cmd"] == "stop":
            return
        if request["cmd"] == "start":
            about = {"name": "training", "version": "1.0", "language": "Python"}
            about["language_version"] = platform.python_version()
            about["operations"] = {name: {"dtypes": list(plain.FORMATS)} for name in operations}
            answer = {"protocol": 1, "implementation": about}
        elif request["operation"] not in operations or not understood(request["params"]):
            answer = {"id": request["id"], "unsupported": {"reason": "not written"}}
        else:
            answer = {"id": request["id"]}
            try:
                answer["outputs"] = outputs(
                    request["operation"], request["inputs"], request["params"]
                )
            except ValueError as error:
                answer["rejected"] = {"message": str(error)}
            except Exception as error:
                answer["errored"] = {"message": repr(error)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--mistake", choices=["", *MISTAKES], default="")
    parser.add_argument("--round", choices=["output", "step"], default="output")
    options = parser.parse_args()
    MISTAKE, ROUND = options.mistake, options.round
    main()
