"""Claims of the articles that only the framework itself can refute: ``python -m adapters._recipes_claims``.

Each function does what an article's program does and returns one line about what happens, and whether
that contradicts the article. With ``--json`` all claims of an article are printed as one object.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable

NOT_INSTALLED = 3
Found = tuple[str, bool]


def assign() -> Found:
    """A1: an item of a variable is assigned to."""
    import tensorflow as tf

    weights = tf.Variable([[0.5], [-0.25]])
    try:
        weights[0] = weights[0] * 0.5
    except TypeError as error:
        return f"TypeError: {error}", True
    return "the assignment went through", False


def if_tensor() -> Found:
    """A2: a whole tensor is asked whether it is smaller than a number."""
    import torch

    try:
        if torch.tensor([0.25, -2.0, 0.5]) < 0.3:
            pass
    except RuntimeError as error:
        return f"RuntimeError: {error}", True
    return "the comparison went through", False


def parameters() -> Found:
    """A3: ``clip_grad_norm_`` is given gradients."""
    import torch

    weight = torch.tensor([3.0, -4.0], requires_grad=True)
    (weight * torch.tensor([6.0, 8.0])).sum().backward()
    assert weight.grad is not None
    before = weight.grad.norm().item()
    returned = float(torch.nn.utils.clip_grad_norm_([weight.grad], 1.0))
    after = weight.grad.norm().item()
    torch.nn.utils.clip_grad_norm_([weight], 1.0)
    right = weight.grad.norm().item()
    text = (
        f"norm {before:g}; clip_grad_norm_([w.grad], 1) returns {returned:g} and leaves {after:g}; "
        f"clip_grad_norm_([w], 1) leaves {right:.6f}"
    )
    return text, (returned, after) == (0.0, before) and right < 1.0


def grad() -> Found:
    """A3: a layer is asked for its gradient."""
    import torch

    layer = torch.nn.Linear(3, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.5, -0.25, 1.0], [-1.0, 0.75, 0.125]]))
        layer.bias.copy_(torch.tensor([0.25, -0.5]))
    layer(torch.tensor([[1.0, -2.0, 0.5]])).square().sum().backward()
    try:
        _ = layer.grad
    except AttributeError as error:
        weight = layer.weight.grad
        assert weight is not None
        return f"AttributeError: {error}; layer.weight.grad has norm {weight.norm():.4f}", True
    return "the layer has a gradient", False


def constraints() -> Found:
    """A5: ``tf.keras.constraints.L1L2``."""
    import tensorflow as tf

    try:
        _ = tf.keras.constraints.L1L2
    except AttributeError as error:
        return (
            f"AttributeError: {error}; {tf.keras.regularizers.L1L2.__name__} is a regulariser",
            True,
        )
    return "the class exists", False


CLAIMS: dict[str, dict[str, tuple[str, Callable[[], Found]]]] = {
    "A1": {"assign": ("tensorflow", assign)},
    "A2": {"if-tensor": ("torch", if_tensor)},
    "A3": {"parameters": ("torch", parameters), "grad": ("torch", grad)},
    "A5": {"constraints": ("tensorflow", constraints)},
}


def main(article: str, *names: str) -> int:
    """Show claims of an article; 1 if one of them turns out to be right, 3 without the framework."""
    found = {}
    chosen = list(CLAIMS.get(article, {})) if names == ("--json",) else list(names)
    for name in chosen:
        framework, show = CLAIMS[article][name]
        try:
            found[name] = (framework, *show())
        except ModuleNotFoundError as error:
            print(f"secateurs: not installed: {error.name}", file=sys.stderr)
            return NOT_INSTALLED
    if names == ("--json",):
        print(json.dumps(found))
    else:
        for framework, text, _ in found.values():
            print(f"{framework}: {text}")
    return 0 if all(refuted for _, _, refuted in found.values()) else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
