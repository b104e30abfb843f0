"""The cases of ``train.trajectory``: three long runs, and short ones of every model and optimiser."""

from __future__ import annotations

from typing import Any

import numpy as np

from conformance import digits
from conformance.cases import Cases, Stream, fixed

Settings = dict[str, Any]
Layers = list[Settings]


def layer(name: str, **options: Any) -> Settings:
    """Return the description of a layer."""
    return {"operation": f"layer.{name}", **options}


RELU, FLAT = layer("relu"), layer("flatten")
MLP = [
    layer("avg_pool2d", window=[2, 2]),
    FLAT,
    layer("dense", units=6),
    RELU,
    layer("dense", units=10),
]
CNN = [
    layer("conv2d", filters=2, kernel=[3, 3]),
    RELU,
    layer("conv2d", filters=3, kernel=[3, 3]),
    RELU,
    layer("avg_pool2d", window=[2, 2]),
    FLAT,
    layer("dense", units=6),
    RELU,
    layer("dense", units=10),
]
CROSS_ENTROPY = {"operation": "loss.softmax_cross_entropy", "reduction": "mean"}
STEPS = 20

SMALL: dict[str, Layers] = {
    "mlp": [FLAT, layer("dense", units=5), RELU, layer("dense", units=3)],
    "cnn": [
        layer("conv2d", filters=2, kernel=[3, 3]),
        RELU,
        layer("conv2d", filters=3, kernel=[2, 2]),
        RELU,
        layer("avg_pool2d", window=[3, 3]),
        FLAT,
        layer("dense", units=4),
        RELU,
        layer("dense", units=3),
    ],
    "keras-cnn": [
        layer("conv2d", filters=3, kernel=[3, 3]),
        RELU,
        layer("max_pool2d", window=[2, 2]),
        FLAT,
        layer("dense", units=5),
        RELU,
        layer("dense", units=3),
    ],
    "rnn": [layer("rnn", units=4), FLAT, layer("dense", units=3)],
}
"""The articles' models, so small that an exact step takes a fraction of a second."""
IMAGE = {"mlp": "coarse", "cnn": "middle", "keras-cnn": "middle", "rnn": "rows"}
OPTIMIZERS: dict[str, Settings] = {
    "sgd": {"operation": "optim.sgd", "lr": 0.25},
    "momentum": {"operation": "optim.sgd", "lr": 0.1, "momentum": 0.9},
    "nesterov": {"operation": "optim.sgd", "lr": 0.1, "momentum": 0.75, "nesterov": True},
    "adam": {"operation": "optim.adam", "lr": 0.02, "eps": 1e-3},
    "adamw": {"operation": "optim.adamw", "lr": 0.05, "eps": 1e-3, "weight_decay": 0.5},
    "amsgrad": {"operation": "optim.adam", "lr": 0.05, "beta2": 0.25, "eps": 1e-3, "amsgrad": True},
    "rmsprop": {"operation": "optim.rmsprop", "lr": 0.02, "alpha": 0.75, "eps": 1e-3},
    "rmsprop-centered": {
        "operation": "optim.rmsprop",
        "lr": 0.02,
        "alpha": 0.5,
        "eps": 0.125,
        "momentum": 0.5,
        "centered": True,
    },
    "adagrad": {"operation": "optim.adagrad", "lr": 0.1, "eps": 1e-3, "initial_accumulator": 0.01},
}
STATEFUL = ("momentum", "nesterov")

CLIP = {"operation": "clip.global_norm", "max_norm": 0.5, "ord": 2}
MOMENTUM, ADAM = OPTIMIZERS["momentum"], OPTIMIZERS["adam"]
BATCH_NORM = layer("batch_norm", eps=0.01)


def shapes_of(model: Layers, x: Any) -> list[tuple[int, ...]]:
    """Return the shapes of the parameters of a model that is shown images or sequences ``x``."""
    shapes: list[tuple[int, ...]] = []
    at: tuple[Any, ...] = x.shape[1:]
    for each in model:
        kind = each["operation"].removeprefix("layer.")
        if kind == "dense":
            shapes += [(at[0], each["units"]), (each["units"],)]
            at = (each["units"],)
        elif kind == "conv2d":
            shapes += [(*each["kernel"], at[2], each["filters"]), (each["filters"],)]
            at = (*(n - k + 1 for n, k in zip(at, each["kernel"], strict=False)), each["filters"])
        elif kind == "rnn":
            units = each["units"]
            shapes += [(at[1], units), (units, units), (units,)]
            at = (at[0], units)
        elif kind in ("max_pool2d", "avg_pool2d"):
            strides = each.get("stride") or each["window"]
            sides = zip(at, each["window"], strides, strict=False)
            at = (*((n - w) // s + 1 for n, w, s in sides), at[2])
        elif kind == "batch_norm":
            shapes += [(at[-1],), (at[-1],)]
        elif kind == "flatten":
            at = (int(np.prod(at)),)
    return shapes


def initial(model: Layers, x: Any, random: Stream) -> list[Any]:
    """Return He-uniform weights and small biases, which differ from each other; scales lie around 1."""
    params = []
    scales = {i for i, kind in enumerate(_kinds(model)) if kind == "scale"}
    for i, shape in enumerate(shapes_of(model, x)):
        fan_in = int(np.prod(shape[:-1])) if len(shape) > 1 else 100
        bound = float(np.sqrt((6.0 if len(shape) > 1 else 1.0) / fan_in))
        params.append(
            random.uniform(*shape, low=-bound, high=bound) + (1.0 if i in scales else 0.0)
        )
    return params


def _kinds(model: Layers) -> list[str]:
    own = {"dense": "weight bias", "conv2d": "weight bias", "rnn": "weight recurrent bias",
           "batch_norm": "scale shift"}  # fmt: skip
    return " ".join(own.get(m["operation"].removeprefix("layer."), "") for m in model).split()


VIEWS: dict[str, Any] = {
    "whole": lambda images: images,
    "coarse": lambda images: images[:, 1::2, ::2],
    "middle": lambda images: images[:, 1:7, 1:7],
    "rows": lambda images: images[:, ::2, 1::2, 0],
}


def batches(
    random: Stream, steps: int, micro: int, size: int, view: str, targets: str
) -> tuple[list[Any], list[Any]]:
    """Return, for each step, its micro-batches of digits and of what is to be learnt about them."""
    images, labels = digits.load()
    order = random.permutation(len(labels))
    x, wanted = [], []
    for step in range(steps):
        parts = [
            order[(step * micro + m) * size : (step * micro + m + 1) * size] for m in range(micro)
        ]
        x.append([VIEWS[view](images[rows]) for rows in parts])
        wanted.append([TARGETS[targets](labels[rows]) for rows in parts])
    return x, wanted


TARGETS: dict[str, Any] = {
    "digit": lambda labels: fixed(labels, "int64"),
    "third": lambda labels: fixed(labels % 3, "int64"),
    # Two numbers of each digit, different from each other.
    "numbers": lambda labels: np.stack([labels / 8 - 0.5, (labels % 4) / 4], axis=1),
    "odd": lambda labels: np.stack([labels % 2, np.where(labels > 4, 0.75, 0.125)], axis=1) * 1.0,
}


def cases(c: Cases) -> None:
    """Write the cases. No run comes near a kink: the oracle would say so when they are made."""
    _long(c)

    def add(name: str, flags: str, labels: str, model: Layers, view: str, optimizer: Settings,
            micro: int = 1, size: int = 4, targets: str = "third", steps: int = 3,
            dtypes: Any = ("float32",), rates: Any = (), **params: Any) -> None:  # fmt: skip
        random = Stream(1001)
        x, wanted = batches(random, steps, micro, size, view, targets)
        inputs = {"params": initial(model, x[0][0], random), "x": x, "targets": wanted}
        if rates:
            inputs["dropout"] = [
                [[fixed(random.uniform(*shape, low=0.0) >= rate, "bool") for shape, rate in rates]
                 for _ in range(micro)]
                for _ in range(steps)
            ]  # fmt: skip
        c.add(name, flags, labels, inputs,
              {"loss": CROSS_ENTROPY, "model": model, "optimizer": optimizer, **params}, dtypes)  # fmt: skip

    for model, described in SMALL.items():
        for name, optimizer in OPTIMIZERS.items():
            flag = "momentum" if name in STATEFUL else "optimizers"
            kind = "recurrent" if model == "rnn" else "cnn" if "cnn" in model else "mlp"
            label = f"small-{model}-{name}"
            add(label, f"{kind} {flag}", "C1", described, IMAGE[model], optimizer)
    _others(add)


def _long(c: Cases) -> None:
    def add(name: str, flags: str, labels: str, model: Layers, micro: int = 1, size: int = 8,
            dtypes: Any = ("float64", "float32"), **params: Any) -> None:  # fmt: skip
        random = Stream(1)
        x, wanted = batches(random, STEPS, micro, size, "whole", "digit")
        inputs = {"params": initial(model, x[0][0], random), "x": x, "targets": wanted}
        c.add(
            name, flags, labels, inputs, {"loss": CROSS_ENTROPY, "model": model, **params}, dtypes
        )

    add("mlp-adam", "mlp accumulation", "C1 C2", MLP, 2, 4, accumulate="mean",
        optimizer={"operation": "optim.adam", "lr": 0.001})  # fmt: skip
    add("cnn-clip-momentum", "cnn momentum clip", "C1 C3", CNN, dtypes=("float32",), clip=CLIP,
        optimizer={"operation": "optim.sgd", "lr": 0.01, "momentum": 0.9})  # fmt: skip
    schedule = {"operation": "schedule.polynomial", "begin": 2, "end": 17, "initial": 0.1,
                "final": 0.8, "power": 3, "frequency": 3}  # fmt: skip
    add("mlp-clip-prune-momentum", "mlp pruning momentum clip", "C1 C3 C4", MLP,
        clip=CLIP | {"max_norm": 1.0}, optimizer={"operation": "optim.sgd", "lr": 0.05, "momentum": 0.9},
        prune={"score": "score.magnitude", "scope": "global", "schedule": schedule,
               "parameters": [0, 2]})  # fmt: skip


def _others(add: Any) -> None:
    """Add what the grid of models and optimisers has not: layers, losses, clips, penalties, rates."""
    both = ("float64", "float32")
    leaky = [FLAT, layer("dense", units=4), layer("leaky_relu", slope=0.2), layer("dense", units=2)]
    mse = {"operation": "loss.mse", "reduction": "mean"}
    binary = {"operation": "loss.binary_cross_entropy", "reduction": "mean"}
    add("leaky-relu-mse", "layers losses momentum", "C1", leaky, "coarse", MOMENTUM, targets="numbers",
        loss=mse, dtypes=both)  # fmt: skip
    curved = [FLAT, layer("dense", units=4), layer("sigmoid"), layer("dense", units=3), layer("tanh"),
              layer("dense", units=2)]  # fmt: skip
    add("sigmoid-tanh-bce", "layers losses optimizers", "C1", curved, "coarse", ADAM, targets="odd",
        loss=binary, dtypes=both)  # fmt: skip
    add("bce-sum", "losses momentum", "C1 C2", curved, "coarse", MOMENTUM, targets="odd", micro=2, size=3,
        loss=binary | {"reduction": "sum"}, accumulate="sum")  # fmt: skip
    add("mse-sum", "losses clip", "C1 C3", curved, "coarse", MOMENTUM, targets="numbers",
        loss=mse | {"reduction": "sum"}, clip=CLIP)  # fmt: skip
    normal = [FLAT, layer("dense", units=4), BATCH_NORM, layer("tanh"), layer("dense", units=3)]
    add("batch-norm-momentum", "batch-norm layers momentum", "C1 C5", normal, "coarse", MOMENTUM,
        dtypes=both)  # fmt: skip
    pixels = [layer("conv2d", filters=2, kernel=[3, 3]), BATCH_NORM, RELU,
              layer("max_pool2d", window=[3, 2], stride=[1, 2]), FLAT, layer("dense", units=3)]  # fmt: skip
    add("batch-norm-pixels", "batch-norm cnn momentum", "C1 C5", pixels, "middle", MOMENTUM)
    add("batch-norm-accumulation", "batch-norm accumulation", "C2 C5", normal, "coarse", MOMENTUM,
        micro=2, size=3)  # fmt: skip
    thin = [FLAT, layer("dense", units=5), layer("dropout", rate=0.25), layer("tanh"),
            layer("dense", units=3)]  # fmt: skip
    add("dropout-momentum", "dropout layers momentum", "C1 C6", thin, "coarse", MOMENTUM,
        rates=[((4, 5), 0.25)], dtypes=both)  # fmt: skip
    thin = [FLAT, layer("dropout", rate=0.4), *thin[1:]]
    add("dropout-twice", "dropout optimizers accumulation", "C2 C6", thin, "coarse", ADAM, micro=2,
        size=3, rates=[((3, 16), 0.4), ((3, 5), 0.25)])  # fmt: skip
    add("dropout-clip-prune", "dropout clip pruning", "C3 C4 C6", thin, "coarse", MOMENTUM, clip=CLIP,
        rates=[((4, 16), 0.4), ((4, 5), 0.25)], prune=_half([0, 2]))  # fmt: skip
    truncated = [layer("rnn", units=4, truncate=2), FLAT, layer("dense", units=3)]
    add(
        "rnn-truncated",
        "recurrent clip",
        "C1 C3",
        truncated,
        "rows",
        MOMENTUM,
        clip=CLIP,
        dtypes=both,
    )
    add("rnn-twice", "recurrent clip optimizers", "C1 C3", [layer("rnn", units=3), *SMALL["rnn"]], "rows",
        ADAM, clip=CLIP | {"max_norm": 0.25})  # fmt: skip
    small = SMALL["mlp"]
    for name, penalty in (
        ("l1", {"operation": "penalty.l1", "strength": 0.05}),
        ("l2", {"operation": "penalty.l2", "strength": 0.1}),
        ("elastic-net", {"operation": "penalty.elastic_net", "l1": 0.05, "l2": 0.1}),
        ("group-lasso", {"operation": "penalty.group_lasso", "strength": 0.2, "axis": -1}),
    ):
        add(f"penalty-{name}", "penalty momentum clip", "C1 C3 C7", small, "coarse", MOMENTUM,
            penalty=penalty, clip=CLIP)  # fmt: skip
    add(
        "lr-schedule",
        "mlp momentum",
        "C8",
        small,
        "coarse",
        MOMENTUM | {"lr": [0.2, 0.05, 0.3]},
    )
    add("value-clip", "clip momentum", "C3", small, "coarse", MOMENTUM,
        clip={"operation": "clip.value", "min": -0.05, "max": 0.02})  # fmt: skip
    add("own-norm-clip", "clip optimizers", "C3", small, "coarse", OPTIMIZERS["adagrad"],
        clip={"operation": "clip.norm", "max_norm": 0.125, "ord": 2})  # fmt: skip
    add("prune-adamw", "pruning optimizers", "C4", small, "coarse", OPTIMIZERS["adamw"],
        prune=_half([0, 2]))  # fmt: skip
    add("prune-rmsprop", "pruning optimizers", "C4", small, "coarse", OPTIMIZERS["rmsprop-centered"],
        prune=_half([0, 2]))  # fmt: skip


def _half(parameters: list[int]) -> Settings:
    """Return a plan that prunes in the first step, and half of all weights in the second."""
    schedule = {"operation": "schedule.polynomial", "begin": 0, "end": 1, "initial": 0.25,
                "final": 0.5, "power": 3, "frequency": 1}  # fmt: skip
    return {"score": "score.magnitude", "scope": "global", "schedule": schedule,
            "parameters": parameters}  # fmt: skip
