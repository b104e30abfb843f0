"""The cases of ``train.step``."""

from __future__ import annotations

from typing import Any

import numpy as np

from conformance.cases import Cases, Stream, fixed, tensor

CLIP = {"operation": "clip.global_norm", "max_norm": 1.0, "ord": 2}
SGD = {"operation": "optim.sgd", "lr": 0.1}
MOMENTUM = SGD | {"momentum": 0.9}
ADAM = {"operation": "optim.adam", "lr": 0.01}
ADAMW = {"operation": "optim.adamw", "lr": 0.01, "weight_decay": 0.1}

PENALTIES = {
    "elastic-net": {"operation": "penalty.elastic_net", "l1": 0.25, "l2": 0.5},
    "group-lasso": {"operation": "penalty.group_lasso", "strength": 0.75, "axis": -1},
}
OTHERS = {
    "rmsprop": {"operation": "optim.rmsprop", "lr": 0.01, "alpha": 0.75, "eps": 0.01},
    "rmsprop-centered": {"operation": "optim.rmsprop", "lr": 0.01, "alpha": 0.5, "eps": 0.125,
                         "momentum": 0.5, "centered": True},
    "adagrad": {"operation": "optim.adagrad", "lr": 0.1, "eps": 0.0625, "initial_accumulator": 0.01},
    "amsgrad": {"operation": "optim.adam", "lr": 0.01, "beta2": 0.25, "amsgrad": True},
}  # fmt: skip
SWITCHES: dict[str, dict[str, Any]] = {
    "accumulate": {"accumulate": "mean"},
    "scale": {"loss_scale": 1024.0},
    "clip": {"clip": CLIP},
    "decay": {"weight_decay": 0.25},
    "momentum": {"momentum": 0.75},
    "mask": {"masked": True},
}
"""What a step may do beside the bare descent; the grid has every combination of them."""


def cases(c: Cases) -> None:
    """Write the cases."""
    random = Stream(11)
    params = [tensor([1.5, -0.75, 2], [0.125, -3, 0.5]), tensor(-0.25, 4, 1)]
    masks = [fixed([[1, 0, 1], [0, 1, 0]], "bool"), fixed([1, 0, 0], "bool")]

    def grads(steps: int, micro: int, scale: float = 1.0) -> list[Any]:
        # Powers of two as scales, and scales that are not, both come up.
        return [
            [[scale * random.uniform(2, 3), scale * random.uniform(3)] for _ in range(micro)]
            for _ in range(steps)
        ]

    def add(name: str, flags: str, labels: str, given: Any, **p: Any) -> None:
        inputs = {"params": params, "grads": given}
        if p.pop("masked", False):
            inputs["masks"] = masks
        settings = {"clip": CLIP, "optimizer": SGD, "accumulate": "mean", "loss_scale": 1.0} | p
        c.add(name, flags, labels, inputs, settings)

    add("sgd", "plain", "C1", grads(2, 1))
    add("no-clip", "plain no-clip", "C1 C4", grads(2, 1), clip=None)
    add("value-clip", "plain other-clip", "C1 C4", grads(3, 1),
        clip={"operation": "clip.value", "min": -0.3, "max": 0.2})  # fmt: skip
    add("own-norm-clip", "plain other-clip", "C1 C4", grads(3, 1),
        clip={"operation": "clip.norm", "max_norm": 0.8, "ord": 2})  # fmt: skip
    add("clip-ord-1", "plain", "C4", grads(2, 1), clip=CLIP | {"ord": 1})
    add("clip-ord-inf", "plain", "C4", grads(2, 2), clip=CLIP | {"ord": "inf", "max_norm": 0.25})
    add("tiny-threshold", "plain eps-visible", "C3", grads(2, 1),
        clip=CLIP | {"max_norm": 1e-6}, optimizer=SGD | {"lr": 1e5})  # fmt: skip
    add("tiny-gradients", "plain eps-visible", "C3", grads(2, 1, 2.0**-20),
        clip=CLIP | {"max_norm": 1e-6}, optimizer=SGD | {"lr": 1e5})  # fmt: skip
    add("norm-below-eps", "plain eps-visible", "C3", grads(2, 1, 2.0**-23),
        clip=CLIP | {"max_norm": 1e-7}, optimizer=SGD | {"lr": 1e6})  # fmt: skip
    for name, optimizer in (("sgd", SGD), ("momentum", MOMENTUM), ("adam", ADAM)):
        kind = {"sgd": "plain", "momentum": "momentum", "adam": "adaptive"}[name]
        add(f"mean-of-3-{name}", f"accumulation {kind}", "C1 C2", grads(3, 3), optimizer=optimizer)
        add(f"sum-of-3-{name}", f"accumulation {kind}", "C1 C2", grads(3, 3),
            optimizer=optimizer, accumulate="sum")  # fmt: skip
        add(f"scale-1024-{name}", f"scaling {kind}", "C1 C3", grads(3, 1, 1024.0),
            optimizer=optimizer, loss_scale=1024.0)  # fmt: skip
        add(f"mean-scale-{name}", f"accumulation scaling {kind}", "C1 C2 C3", grads(3, 2, 1000.0),
            optimizer=optimizer, loss_scale=1000.0)  # fmt: skip
        add(f"masks-{name}", f"masks {kind}", "C6", grads(4, 1), optimizer=optimizer, masked=True)
        overflowed = grads(4, 2, 512.0)
        overflowed[1][0][1][2] = np.inf
        add(f"skip-{name}", f"skip scaling {kind}", "C5", overflowed, optimizer=optimizer,
            loss_scale=512.0)  # fmt: skip
    add("orthogonal-micro-batches", "accumulation", "C2 C3",
        [[[tensor([2, 0, 0], [0, 0, 0]), tensor(0, 0, 0)], [tensor([0, 2, 0], [0, 0, 0]), tensor(0, 0, 0)]]],
        accumulate="sum")  # fmt: skip
    add("scale-below-threshold", "scaling", "C3", grads(2, 1, 65536 / 32),
        loss_scale=65536.0)  # fmt: skip
    first = grads(3, 1)
    first[0][0][0][0, 1] = np.nan
    add("skip-first", "skip momentum", "C5", first, optimizer=MOMENTUM)
    last = grads(3, 1)
    last[2][0][1][0] = -np.inf
    add("skip-last-masked", "skip masks momentum", "C5 C6", last, optimizer=MOMENTUM, masked=True)
    add("skip-all-adamw", "skip adaptive", "C5", [[[tensor([np.inf] * 3, [0.5] * 3), tensor(1, 2, 3)]]],
        optimizer=ADAMW)  # fmt: skip
    add("loss-scale-list", "scaling skip adaptive", "C5 C7",
        [grads(1, 1, 4096.0)[0], [[tensor([np.inf, 1, 2], [3, 4, 5]), tensor(1, 2, np.nan)]],
         grads(1, 1, 2048.0)[0]], optimizer=ADAM | {"lr": [0.1, 0.05, 0.02]},
        loss_scale=[4096.0, 4096.0, 2048.0])  # fmt: skip
    coupled = SGD | {"weight_decay": 0.5}
    add("coupled-decay", "decay", "C3", grads(3, 1), optimizer=coupled)
    add("coupled-decay-momentum", "decay momentum", "C3", grads(3, 2),
        optimizer=MOMENTUM | {"weight_decay": 0.25})  # fmt: skip
    add("decay-of-zero-gradient", "decay", "C3", [[[np.zeros((2, 3)), np.zeros(3)]]],
        optimizer=coupled | {"weight_decay": 4.0})  # fmt: skip
    add("adam-decay", "decay adaptive", "C3", grads(3, 1), optimizer=ADAM | {"weight_decay": 0.1})
    add("adamw", "decay adaptive", "C3", grads(3, 1), optimizer=ADAMW)
    add("adamw-accumulation-scale-masks", "decay adaptive accumulation scaling masks", "C1 C6",
        grads(4, 2, 256.0), optimizer=ADAMW, loss_scale=256.0, masked=True)  # fmt: skip
    for kind, penalty in PENALTIES.items():
        add(f"penalty-{kind}", "penalty", "C3 C4", grads(3, 1), penalty=penalty)
        add(f"penalty-{kind}-scaled-momentum", "penalty scaling accumulation momentum", "C1 C3",
            grads(3, 2, 128.0), penalty=penalty, loss_scale=128.0, optimizer=MOMENTUM)  # fmt: skip
    add("penalty-group-lasso-masked", "penalty masks momentum", "C3 C6", grads(3, 1), masked=True,
        penalty=PENALTIES["group-lasso"], optimizer=MOMENTUM)  # fmt: skip
    for kind in ("l1", "l2"):
        add(f"penalty-{kind}", "penalty", "C3 C4", grads(3, 1),
            penalty={"operation": f"penalty.{kind}", "strength": 0.5})  # fmt: skip
        add(f"penalty-{kind}-scaled", "penalty scaling accumulation", "C3", grads(2, 2, 128.0),
            penalty={"operation": f"penalty.{kind}", "strength": 0.25}, loss_scale=128.0)  # fmt: skip
    add("penalty-l1-masked", "penalty masks momentum", "C3 C6", grads(3, 1), masked=True,
        penalty={"operation": "penalty.l1", "strength": 0.5}, optimizer=MOMENTUM)  # fmt: skip
    add("lr-schedule-momentum", "schedule momentum", "C7", grads(4, 1),
        optimizer=MOMENTUM | {"lr": [1.0, 0.1, 0.1, 0.5]})  # fmt: skip
    add("nesterov", "momentum schedule", "C1 C7", grads(3, 2),
        optimizer=MOMENTUM | {"nesterov": True, "lr": [0.1, 0.02, 0.3]})  # fmt: skip
    add("adam-large-eps", "adaptive", "C1", grads(3, 1), optimizer=ADAM | {"eps": 0.1})
    absent = grads(3, 2)
    absent[0][0][1] = absent[1][0][1] = absent[1][1][1] = None
    add("absent", "absent accumulation momentum", "C2 C8", absent, optimizer=MOMENTUM)
    quiet = grads(3, 1)
    quiet[0][0][0] = None
    quiet[2][0][0] = None
    add(
        "all-absent", "absent momentum", "C2 C8", [[[None, None]], *grads(1, 2)], optimizer=MOMENTUM
    )
    add("absent-adam", "absent adaptive", "C8", quiet, optimizer=ADAM)
    add("absent-decay", "absent decay", "C8", [[[None, tensor(1, -2, 3)]]], optimizer=coupled)
    add("scale-zero", "refused", "C9", grads(1, 1), loss_scale=0.0)
    add("scale-negative", "refused", "C9", grads(1, 1), loss_scale=-2.0)
    add("no-micro-batch", "refused", "C9", [[]])
    add("clip-negative", "refused", "C9", grads(1, 1), clip=CLIP | {"max_norm": -1.0})
    for name, optimizer in OTHERS.items():
        add(f"{name}", "adaptive", "C1", grads(4, 1), optimizer=optimizer)
        add(f"mean-scale-{name}", "accumulation scaling adaptive", "C1 C2 C3", grads(3, 2, 1000.0),
            optimizer=optimizer, loss_scale=1000.0)  # fmt: skip
        add(f"masks-{name}", "masks adaptive", "C6", grads(4, 1), optimizer=optimizer, masked=True)
        overflowed = grads(3, 2, 256.0)
        overflowed[1][1][0][1, 2] = np.inf
        add(f"skip-{name}", "skip scaling adaptive", "C5", overflowed, optimizer=optimizer,
            loss_scale=256.0)  # fmt: skip
    add("adagrad-decay", "decay adaptive", "C3", grads(3, 1),
        optimizer=OTHERS["adagrad"] | {"weight_decay": 0.25})  # fmt: skip
    add("adagrad-lr-decay", "adaptive skip", "C5 C7", [*grads(2, 1), *overflowed[1:2], *grads(1, 1)],
        optimizer=OTHERS["adagrad"] | {"lr_decay": 0.5})  # fmt: skip
    _grid(c, params, masks)
    # A gradient that stays an array while micro-batches are added up, where NumPy makes a bare number of it.
    alone = {"params": [np.array(1.5), tensor(-0.25, 4)]}
    random = Stream(12)
    for micro in (1, 3):
        given = [[[random.uniform(), random.uniform(2)] for _ in range(micro)] for _ in range(2)]
        how = {"clip": CLIP | {"max_norm": 0.125}, "optimizer": MOMENTUM, "accumulate": "mean",
               "loss_scale": 1.0}  # fmt: skip
        c.add(
            f"zero-dimensional-{micro}",
            "accumulation momentum",
            "C1 C3",
            alone | {"grads": given},
            how,
        )


def _grid(c: Cases, params: list[Any], masks: list[Any]) -> None:
    """Add accumulation × scaling × clip × decay × momentum × mask, each on and off."""
    for number in range(2 ** len(SWITCHES)):
        on = [name for i, name in enumerate(SWITCHES) if number >> i & 1]
        random = Stream(700 + number)
        scale, micro = (1024.0 if "scale" in on else 1.0), (3 if "accumulate" in on else 1)
        given = [
            [[scale * random.uniform(2, 3), scale * random.uniform(3)] for _ in range(micro)]
            for _ in range(2)
        ]
        chosen = [SWITCHES[name] for name in on if name not in ("decay", "momentum", "mask")]
        settings: dict[str, Any] = {"clip": None, "accumulate": "mean", "loss_scale": 1.0}
        for switch in chosen:
            settings |= switch
        extra = [SWITCHES[name] for name in on if name in ("decay", "momentum")]
        settings["optimizer"] = {k: v for part in (SGD, *extra) for k, v in part.items()}
        inputs = {"params": params, "grads": given} | ({"masks": masks} if "mask" in on else {})
        labels = "C1 C3 C6" if "mask" in on else "C1 C3"
        flags = "grid" if "clip" in on else "grid no-clip"
        c.add(f"grid-{'-'.join(on) or 'bare'}", flags, labels, inputs, settings, ("float32",))
