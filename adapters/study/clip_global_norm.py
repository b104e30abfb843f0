"""The global-norm clip, step by step."""

from __future__ import annotations

from adapters.study import edges
from adapters.study import global_norm_compared as compared
from adapters.study import global_norm_numbers as numbers
from adapters.study.cases import dialect_control
from adapters.study.excerpts import excerpt
from adapters.study.model import Control, Stage, Stop, Topic
from refimpl import clipping, norms, numpy_forms


def topic() -> Topic:
    """Return the page."""
    examples = tuple(Stop(name, f"{name}-f32") for name in compared.EPS_CASES)
    return Topic(
        "global_norm",
        "Global-norm clip",
        LEAD,
        stages(),
        (numbers.control(), dialect_control(numbers.OPERATION), Control("example", "case", examples, start=3),
            compared.large_control()),
        ("R. Pascanu, T. Mikolov, Y. Bengio: On the difficulty of training recurrent neural networks. ICML "
            "2013",),
    )  # fmt: skip


LEAD = """A gradient says in which direction the weights should move, and its length how far. Now and then one
is so long that a single step ruins the model. Clipping by the global norm shortens such a gradient to a
length that you choose, the threshold $c$, and keeps its direction.

By hand it takes four steps: square and add up all elements of all tensors, take the root, divide $c$ by it,
and multiply everything with the result. If the root is at most $c$, leave everything alone."""


def stages() -> tuple[Stage, ...]:
    """Return the stages."""
    both = ("threshold", "dialect")
    usual = excerpt(numpy_forms.usual_factor, "factor = c / n")
    return (
        Stage("squares", "Square and add up", """The gradient of a model is a list of tensors, one for each
            weight tensor. For the global norm they count as one long vector: every element is squared, and all
            squares are added. The squares of the tensors can be added one tensor at a time.""",
            r"S = \sum_t \sum_i g_{t,i}^2",
            (excerpt(numpy_forms.sum_of_squares, "def squares(part", "return float(sums",
                ("sums = np.add", "return float(sums")),), numbers.CASE, numbers.squares),
        Stage("norm", "Take the root", """The root of the sum is the length of that vector, its 2-norm. It is
            always taken over the gradient before clipping, and this is the number that training logs show.""",
            r"n = \sqrt{S} = \lVert g \rVert_2",
            (excerpt(norms.scaled_norm, "squares = sum_of_squares", "return ScaledNorm", ("norm = scalar",)),),
            numbers.CASE, numbers.root),
        Stage("coefficient", "Divide the threshold by it", """The factor is $c/n$, but never more than 1: a
            gradient that is short enough is not made longer. The kink of the curve below is the break point
            $c = n$. Move the slider across it.""",
            r"k = \min\left(1, \frac{c}{n}\right)",
            (usual, excerpt(norms.factors, "eps = scalar", "direct = c / bottom", ("bottom =", "direct ="))),
            numbers.CASE, numbers.factor, both),
        Stage("scale", "Multiply everything", """One factor for all elements of all tensors. Where the factor
            is 1, the outputs are the inputs bit for bit.""",
            r"\hat g_{t,i} = k \cdot g_{t,i}",
            (excerpt(numpy_forms.times, "wide = array.astype", "return wide.astype", ("np.multiply",)),),
            numbers.CASE, numbers.scaled, both),
        Stage("direction", "Why the direction stays", """Multiplying a vector by one positive number changes
            its length only. A value clip instead cuts each element by itself to $[-c, c]$: large elements lose
            much, small ones nothing. The proportions between the elements are the direction, so the arrow turns
            towards the diagonal. The cosine of the angle is 1 if nothing turns.""",
            r"\cos\theta = \frac{g \cdot \hat g}{\lVert g \rVert \, \lVert \hat g \rVert}",
            (excerpt(clipping._limited, "limited = xp.where"),), numbers.CASE, compared.turned, ("threshold",)),
        Stage("per-tensor", "One factor, or one for each tensor", """If each tensor is clipped by
            its own norm (`clip.norm`), a tensor above the threshold shrinks while one below keeps
            its size. Each tensor keeps its direction, the gradient as a whole does not, and its
            joint norm may still exceed $c$.""",
            r"k_t = \min\left(1, \frac{c}{\lVert g_t \rVert}\right)",
            (excerpt(clipping.clip_norm, "norms = [", "for g, n in zip"),), numbers.CASE, compared.apart,
                ("threshold",)),
        Stage("histogram", "What a histogram shows", """A larger gradient: 9,200 elements spread
            evenly over −1 … 1. Its norm is about 55, so that even a generous threshold of 20
            shortens it by more than half. The norm grows with the root of the number of elements: a
            threshold that suits a small model is tight for a large one.""",
            r"\hat g_i = k \cdot g_i", (usual,), compared.LARGE, compared.histogram, ("large",)),
        Stage("eps", "What PyTorch's 1e-6 does", r"""`torch.nn.utils.clip_grad_norm_` divides by $n
            + 10^{-6}$, to be safe from a division by zero. Beside a norm of 5 that changes the
            seventh digit: the clipped norm is a hair below $c$. Beside a norm of $10^{-6}$ it
            halves the gradient. And since PyTorch clips wherever $c/(n + 10^{-6}) < 1$, a gradient
            whose norm is exactly $c$ is shrunk a little too. refimpl needs no epsilon: if $n$ is 0
            the gradient is zero and stays zero.""",
            r"k_{\mathrm{torch}} = \min\left(1, \frac{c}{n + 10^{-6}}\right)",
            (excerpt(norms.factors, "bottom = {"),), f"{numbers.OPERATION}/*-f32, named in the table",
                compared.eps,
                ("example",)),
        Stage("libraries", "The libraries beside each other", r"""PyTorch and MLX add $10^{-6}$;
            TensorFlow and Keras multiply by $c \cdot \min(1/n, 1/c)$, which rounds twice and
            touches even a gradient below the threshold; Optax multiplies also where $n = c$. The
            numbers are refimpl's with the dials at each library's conventions; a library may add
            its operations up in another order, which moves the last bit or two.""",
            r"k = \frac{c}{n + \varepsilon} \quad\text{or}\quad c \cdot \min\left(\frac{1}{n}, "
                r"\frac{1}{c}\right)",
            (excerpt(norms.factors, "binds =", "second = xp.where(binds"),), numbers.CASE,
                compared.libraries, ("threshold",)),
        Stage("edges", "Zeros, NaN, infinities, overflow", r"""The corners in which libraries differ
            most. An infinite or NaN norm must not become a silent zero, so refimpl makes everything
            NaN. Squares of $10^{20}$ exceed float32 though the norm does not, so they are scaled by
            a power of two first, which rounds nothing.""",
            r"n = \frac{\sqrt{\sum (s\,g_i)^2}}{s} \quad s = 2^{e}",
            (excerpt(norms._scaled_norm, "usable =", "scale = xp.where"),
             excerpt(norms._guard_nonfinite, "one, nan", "factor = xp.where")),
            f"{numbers.OPERATION}/*-f32, named in the table",
            edges.fill(numbers.OPERATION, numbers.EDGES, numbers.clip, "max_norm"), ("dialect",)),
    )  # fmt: skip
