"""The cases of ``layer.batch_norm``."""

from __future__ import annotations

from typing import Any

import numpy as np

from conformance.cases import ALL, Cases, Stream, tensor
from conformance.operations import _dtype_cases
from conformance.oracle.normalisation import VECTORS


def cases(c: Cases) -> None:
    """Write the cases."""
    random = Stream(131)
    nan, inf = np.nan, np.inf

    def add(
        name: str,
        flags: str,
        labels: str,
        x: Any,
        params: dict[str, Any] | None = None,
        dtypes: Any = ("float64", "float32"),
        **given: Any,
    ) -> None:
        if isinstance(x, tuple):
            # Statistics that differ from channel to channel, and rows that differ in size.
            spread = np.linspace(0.5, 3.0, x[-1])
            x = random.uniform(*x, low=-2.0, high=2.0) * spread + np.linspace(-3.0, 2.0, x[-1])
        channels = x.shape[-1]
        inputs = {
            "x": x,
            "scale": random.uniform(channels, low=0.5, high=2.0)
            * np.where(np.arange(channels) % 2, -1, 1),
            "shift": random.uniform(channels, low=-2.0, high=2.0),
            "running_mean": random.uniform(channels, low=-1.0, high=1.0),
            "running_var": random.uniform(channels, low=0.5, high=3.0),
            "dy": random.uniform(*x.shape, low=-3.0, high=3.0),
        }
        c.add(name, flags, labels, inputs | given, params, dtypes)

    evaluation = {"training": False}
    add("basic", "basic", "C1 C2 C3 C4 C5", (5, 3), None, ALL)
    add(
        "by-hand",
        "basic running",
        "C1 C2 C3 C4 C5",
        tensor([1, -2], [3, 4]),
        {"eps": 0.0625, "momentum": 0.25},
        scale=tensor(2, -1),
        shift=tensor(0.5, 3),
        running_mean=tensor(0, 8),
        running_var=tensor(1, 2),
        dy=tensor([1, 0.5], [-3, 2]),
    )
    add("one-channel", "basic", "C1 C2 C3", (6, 1))
    add("many-channels", "basic", "C1 C2 C3", (3, 8))
    add("many-examples", "basic", "C1 C2 C3 C5", (12, 2))
    add("square", "basic", "C1 C2 C3", (4, 4))
    add("image", "image", "C1 C2 C3 C5", (2, 2, 1, 3), None, ALL)
    add("image-wide", "image", "C1 C2 C3", (1, 2, 5, 2))
    add("image-square", "image", "C1 C2 C3", (2, 2, 2, 2))
    add("image-one-pixel", "image", "C1 C2", (4, 1, 1, 3))
    add("sequence", "sequence", "C1 C2 C3", (3, 4, 2))
    add("sequence-one-example", "sequence", "C1 C2", (1, 6, 3))
    add("five-axes", "sequence", "C1 C2", (2, 2, 1, 2, 2))
    add("evaluation", "evaluation", "C2 C3 C6", (4, 3), evaluation, ALL)
    add("evaluation-image", "evaluation image", "C2 C3 C6", (2, 2, 3, 2), evaluation)
    add(
        "evaluation-by-hand",
        "evaluation",
        "C2 C6",
        tensor([1, 2], [5, -2]),
        {**evaluation, "eps": 0.75},
        scale=tensor(2, -3),
        shift=tensor(0.5, 1),
        running_mean=tensor(3, -1),
        running_var=tensor(3.25, 0.25),
        dy=tensor([1, -2], [0.5, 4]),
    )
    add(
        "evaluation-zero-variance",
        "evaluation eps-visible",
        "C2 C6",
        (3, 2),
        evaluation,
        running_var=tensor(0, 0.5),
    )
    add(
        "evaluation-large-mean",
        "evaluation large-mean",
        "C2 C6",
        (3, 2),
        evaluation,
        running_mean=tensor(1e4, -1e3),
    )
    add("momentum-quarter", "running", "C4 C5", (3, 2), {"momentum": 0.25}, ALL)
    add("momentum-hundredth", "running", "C4 C5", (3, 2), {"momentum": 0.01})
    add("momentum-most", "running", "C4 C5", (4, 2), {"momentum": 0.9})
    add("running-two-values", "running one-value", "C4 C5", (2, 3), {"momentum": 0.5})
    add(
        "running-far-off",
        "running",
        "C4",
        (3, 2),
        {"momentum": 0.25},
        running_mean=tensor(100, -50),
        running_var=tensor(1e3, 1e-3),
    )
    add("running-image", "running image", "C4 C5", (2, 2, 2, 2), {"momentum": 0.5})
    add("momentum-zero", "momentum-edge running", "C4", (3, 2), {"momentum": 0.0})
    add("momentum-one", "momentum-edge running", "C4 C5", (3, 2), {"momentum": 1.0})
    add("momentum-one-image", "momentum-edge image", "C4 C5", (2, 3, 1, 2), {"momentum": 1})
    few = random.uniform(6, 2, low=-1.0, high=1.0)
    add("large-mean", "large-mean", "C7", few + tensor(1000, -500))
    add("large-mean-small-spread", "large-mean", "C7", np.round(few * 64) / 64 + 8192)
    add(
        "large-mean-image",
        "large-mean image",
        "C7",
        random.uniform(2, 2, 2, 2) / 4 + tensor(300, 5),
    )
    add("large-mean-tiny-eps", "large-mean", "C7", few / 8 + 256, {"eps": 1e-12})
    add("constant-channel", "constant-channel", "C8", tensor([3, 1], [3, 2], [3, -4]))
    add("constant-zeros", "constant-channel", "C8", tensor([0, 1], [0, 2], [0, -4]), {"eps": 1e-3})
    add("constant-all", "constant-channel", "C8", np.full((4, 2), -1.5), {"eps": 0.0625})
    add("eps-large", "eps-visible", "C2", (4, 2), {"eps": 0.5})
    add("eps-thousandth", "eps-visible", "C2", (4, 2), {"eps": 1e-3})
    small = random.uniform(4, 2, low=-0.01, high=0.01)
    add("eps-beside-small", "eps-visible", "C2 C3", small, {"eps": 1e-3})
    add("eps-default-beside-small", "eps-visible", "C2 C3", small * 0.5)
    add("eps-zero", "eps-visible", "C2 C11", (4, 2), {"eps": 0.0})
    add("one-value", "one-value", "C9", (1, 3))
    add("one-value-image", "one-value image", "C9", (1, 1, 1, 2))
    add("one-value-evaluation", "one-value evaluation", "C6 C9", (1, 3), evaluation)
    add("two-values", "one-value", "C1 C2 C3", (2, 2), {"eps": 0.125})
    add("empty-batch", "empty-batch", "C9", (0, 3))
    add("empty-image", "empty-batch image", "C9", (2, 0, 3, 2))
    add("empty-batch-evaluation", "empty-batch evaluation", "C6 C9", (0, 3), evaluation)
    add(
        "uneven-upstream",
        "uneven-upstream",
        "C3",
        (3, 4),
        dy=tensor([1e3, 0, -1e-3, 2], [0, 0, 0, 0], [-5, 1e-2, 7, 0]),
    )
    add("zero-upstream", "uneven-upstream", "C3", (3, 2), dy=np.zeros((3, 2)))
    add("one-upstream", "uneven-upstream", "C3", (3, 2), dy=tensor([0, 0], [0, -2.5], [0, 0]))
    add(
        "constant-upstream", "uneven-upstream", "C3", (4, 2), dy=np.tile(tensor(2.0, -0.75), (4, 1))
    )
    add("nan", "nonfinite", "C10", tensor([1, 2], [nan, 3], [0.5, -1]))
    add("infinity", "nonfinite", "C10", tensor([1, 2], [3, inf], [0.5, -1]))
    add(
        "nan-image",
        "nonfinite image",
        "C10",
        np.where(np.arange(16).reshape(2, 2, 2, 2) == 5, nan, random.uniform(2, 2, 2, 2)),
    )
    add(
        "nan-evaluation",
        "nonfinite evaluation",
        "C6 C10",
        tensor([1, 2], [nan, 3], [0.5, inf]),
        evaluation,
    )
    add("nan-upstream", "nonfinite", "C10", (3, 2), dy=tensor([1, 2], [nan, 3], [0.5, -1]))
    for name, value in (("negative", -0.5), ("above-one", 1.5), ("nan", "nan")):
        add(f"momentum-{name}", "bad-parameter", "C11", (3, 2), {"momentum": value}, ("float32",))
    for name, value in (("negative", -1e-3), ("nan", "nan"), ("infinite", "inf")):
        add(f"eps-{name}", "bad-parameter", "C11", (3, 2), {"eps": value}, ("float32",))
    only = ("float32",)
    add("vector", "bad-shape", "C11", tensor(1, 2, 3), None, only)
    add("scale-mismatch", "bad-shape", "C11", (3, 2), None, only, scale=tensor(1, 2, 3))
    add("shift-mismatch", "bad-shape", "C11", (2, 3), None, only, shift=tensor(1, 2))
    add("running-mismatch", "bad-shape", "C11", (3, 2), None, only, running_mean=tensor(1, 2, 3))
    add("channels-first", "bad-shape", "C11", (2, 3, 4, 5), None, only, scale=tensor(1, 2, 3))
    add("upstream-mismatch", "bad-shape", "C11", (3, 2), None, only, dy=random.uniform(2, 3))
    channels = {name: random.uniform(3, low=0.5, high=2.0) for name in VECTORS}
    both = {"x": random.uniform(4, 3), "dy": random.uniform(4, 3, low=-3.0, high=3.0)}
    _dtype_cases.refused(c, "C12", both | channels)
