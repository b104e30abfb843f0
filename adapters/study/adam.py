"""Adam, step by step."""

from __future__ import annotations

from functools import cache
from typing import Any

from adapters.study.cases import case
from adapters.study.excerpts import excerpt
from adapters.study.model import Choice, Control, Fill, Mark, Plot, Stage, Stop, Table, Topic
from adapters.study.numbers import exact, rounded
from refimpl import optimizers

CASE = "optim.adam/observed-f32"
WHERE = ("outside_root", "inside_root", "before_bias_correction")
STARTS = ("1", "−2", "0.5", "0.25", "0.75")


@cache
def run(
    eps: float = 1e-8, eps_at: str = "outside_root", bias_correction: bool = True
) -> list[dict[str, Any]]:
    """Return parameters and moments before the first step and after each."""
    chosen = case(CASE)
    options = {k: chosen.params[k] for k in ("lr", "beta1", "beta2")}
    optimizer = optimizers.adam(**options, eps=eps, eps_at=eps_at, bias_correction=bias_correction)
    params = list(chosen.inputs["params"])
    state = optimizer.init(params)
    path = [{"w": params[0], "m": state["first_moment"][0], "v": state["second_moment"][0]}]
    for grads in chosen.inputs["grads"]:
        params, state = optimizer.update(params, list(grads), state)
        path.append({"w": params[0], "m": state["first_moment"][0], "v": state["second_moment"][0]})
    return path


def _g(choice: Choice) -> Any:
    return case(CASE).inputs["grads"][choice["step"] - 1][0][choice["weight"]]


def _table(choice: Choice, name: str, heads: tuple[str, ...]) -> Table:
    path, i = run(), choice["weight"]
    grads = case(CASE).inputs["grads"]
    rows = tuple(
        (str(t), exact(grads[t - 1][0][i]), exact(path[t][name][i])) for t in range(1, len(path))
    )
    return Table(
        "Step by step",
        heads,
        rows,
        tuple("here" if t == choice["step"] else "" for t in range(1, len(path))),
    )


def _first(choice: Choice) -> Fill:
    t, i = choice["step"], choice["weight"]
    path = run()
    return Fill(
        r"m = 0.9 \cdot («m0») + 0.1 \cdot («g») = «m»",
        {"m0": exact(path[t - 1]["m"][i]), "g": exact(_g(choice)), "m": exact(path[t]["m"][i])},
        "A running mean of the gradients: it keeps nine tenths of what it was.",
        (_table(choice, "m", ("step", "gradient", "m")),
         Plot("Gradient and running mean", "step", "value", (
             Mark("line", "gradient", tuple((s + 1, float(g[0][i])) for s,
                 g in enumerate(case(CASE).inputs["grads"])), 0),
             Mark("line", "m", tuple((s, float(p["m"][i])) for s, p in enumerate(path)), 1)))),
    )  # fmt: skip


def _second(choice: Choice) -> Fill:
    t, i = choice["step"], choice["weight"]
    path = run()
    return Fill(
        r"v = 0.999 \cdot «v0» + 0.001 \cdot («g»)^2 = «v»",
        {"v0": exact(path[t - 1]["v"][i]), "g": exact(_g(choice)), "v": exact(path[t]["v"][i])},
        "A running mean of the squares: how large the gradient of this weight usually is.",
        (_table(choice, "v", ("step", "gradient", "v")),),
    )


def _corrected(choice: Choice) -> Fill:
    t, i = choice["step"], choice["weight"]
    m, v = run()[t]["m"][i], run()[t]["v"][i]
    c1, c2 = 1 - 0.9**t, 1 - 0.999**t
    rows = tuple((str(s), rounded(1 - 0.9**s, 6), rounded(1 - 0.999**s, 6),
        exact(run()[s]["m"][i] / (1 - 0.9**s)),
                  exact(run()[s]["v"][i] / (1 - 0.999**s))) for s in range(1, 6))  # fmt: skip
    return Fill(
        r"\hat m = \frac{«m»}{1 - 0.9^{«t»}} = «M» \quad \hat v = \frac{«v»}{1 - 0.999^{«t»}} = «V»",
        {"m": exact(m), "v": exact(v), "t": str(t), "M": exact(m / c1), "V": exact(v / c2)},
        f"At step {t} the means have seen only {rounded(100 * c1, 3)} % and {rounded(100 * c2, 3)} % of "
            f"their weight in gradients.",
        (Table("The corrections", ("step", "1 − 0.9^t", "1 − 0.999^t", "m corrected", "v corrected"), rows,
               tuple("here" if s == t else "" for s in range(1, 6))),),
    )  # fmt: skip


def _update(choice: Choice) -> Fill:
    t, i = choice["step"], choice["weight"]
    path = run()
    m, v = path[t]["m"][i] / (1 - 0.9**t), path[t]["v"][i] / (1 - 0.999**t)
    rows = tuple((str(s), *(exact(w) for w in p["w"])) for s, p in enumerate(path))
    return Fill(
        r"w = «w0» - 0.1 \cdot \frac{«M»}{\sqrt{«V»} + 10^{-8}} = «w»",
        {"w0": exact(path[t - 1]["w"][i]), "M": exact(m), "V": exact(v), "w": exact(path[t]["w"][i])},
        "The first step moves every weight by about the learning rate, however large its gradient is. The "
            "weight whose"
        " gradient is 1e−8 moves by half of it: there eps is as large as the root.",
        (
            Plot("The weights", "step", "weight", tuple(
                Mark("line", f"starts at {STARTS[j]}", tuple((s, float(p["w"][j])) for s,
                    p in enumerate(path)), j)
                for j in range(5))),
            Table("The weights after each step", ("step", *(f"`w[{j}]`" for j in range(5))), rows,
                  tuple("here" if s == t else "" for s in range(6))),
        ),
    )  # fmt: skip


def _where(choice: Choice) -> Fill:
    t, eps = choice["step"], choice["eps"]
    rows = []
    for place in WHERE:
        rows.append((f"`{place}`", *(exact(w) for w in run(eps, place)[t]["w"])))
    rows.append(("no bias correction", *(exact(w) for w in run(eps, WHERE[0], False)[t]["w"])))
    i = choice["weight"]
    before, after = ([run(eps, place)[s] for place in WHERE] for s in (t - 1, t))
    m, v = run()[t]["m"][i], run()[t]["v"][i]
    lines = tuple(
        Mark(
            "line",
            place,
            tuple((s, float(p["w"][choice["weight"]])) for s, p in enumerate(run(eps, place))),
            c,
        )
        for c, place in enumerate(WHERE, 1)
    )
    return Fill(
        r"w = «w0» - 0.1 \cdot \frac{«M»}{\sqrt{«V»} + «e»} = «W0» \quad "
        r"w = «w1» - 0.1 \cdot \frac{«M»}{\sqrt{«V» + «e»}} = «W1» \quad "
        r"w = «w2» - 0.1 \cdot \frac{\sqrt{1 - 0.999^{«t»}}}{1 - 0.9^{«t»}} \cdot "
        r"\frac{«m»}{\sqrt{«v»} + «e»} = «W2»",
        {"e": exact(eps), "t": str(t), "m": exact(m), "v": exact(v),
         "M": exact(m / (1 - 0.9**t)), "V": exact(v / (1 - 0.999**t)),
         **{f"w{k}": exact(path["w"][i]) for k, path in enumerate(before)},
         **{f"W{k}": exact(path["w"][i]) for k, path in enumerate(after)}},
        "PyTorch and Optax add eps to the root, Keras adds it before the bias correction; MLX corrects no "
            "bias unless asked.",
        (Table(f"After step {t}", ("where eps is added", *(f"`w[{j}]`" for j in range(5))), tuple(rows)),
         Plot("The chosen weight", "step", "weight", lines)),
    )  # fmt: skip


def topic() -> Topic:
    """Return the page."""
    rule = optimizers.adam
    two = ("step", "weight")
    return Topic("adam", "Adam", LEAD, (
        Stage("first", "The mean of the gradients", "Each weight has a running mean of its gradients, which "
            "starts at 0.",
            r"m \leftarrow \beta_1 m + (1 - \beta_1) g", (excerpt(rule, "m = beta1 *"),), CASE, _first, two),
        Stage("second", "The mean of the squares", "And a running mean of the squares of its gradients.",
            r"v \leftarrow \beta_2 v + (1 - \beta_2) g^2", (excerpt(rule, "v = beta2 *"),), CASE, _second, two),
        Stage("corrected", "The bias correction", """Both means start at 0 and are too small at
            first. After t steps the weights of all gradients add up to $1 - \\beta^t$; dividing by
            that makes means of them.""",
            r"\hat m = \frac{m}{1 - \beta_1^t} \quad \hat v = \frac{v}{1 - \beta_2^t}",
            (excerpt(rule, "return 1.0 - beta**t"), excerpt(rule, "correction1 = ", "correction2 =")), CASE,
                _corrected, two),
        Stage("update", "The step", """The mean, divided by the usual size: weights with large
            gradients and weights with small ones move equally far. That is why a clip of all
            gradients by one factor changes little under Adam, unless the factor changes from step
            to step.""",
            r"w \leftarrow w - \eta \frac{\hat m}{\sqrt{\hat v} + \varepsilon}",
            (excerpt(rule, "divisor = _root", "return lr * (m"), excerpt(optimizers._root,
                "return xp.sqrt")), CASE, _update, two),
        Stage("eps", "Where eps is added", """eps keeps the division from 0/0. Libraries add it at
            three different places, which shows wherever the root of v is not much larger than eps.""",
            r"\frac{\hat m}{\sqrt{\hat v} + \varepsilon} \quad \frac{\hat m}{\sqrt{\hat v + \varepsilon}} "
                r"\quad \frac{\sqrt{1 - \beta_2^t}}{1 - \beta_1^t} \cdot \frac{m}{\sqrt{v} + \varepsilon}",
            (excerpt(optimizers._root, "return xp.sqrt"), excerpt(rule, "rate = lr * math.sqrt",
                "return rate * m")), CASE, _where,
            ("step", "weight", "eps")),
    ), (
        Control("step", "step", tuple(Stop(t, str(t)) for t in range(1, 6)), "slider"),
        Control("weight", "weight", tuple(Stop(i, f"w[{i}], starts at {s}") for i, s in enumerate(STARTS))),
        Control("eps", "eps", (Stop(1e-8, "1e−8"), Stop(1e-3, "0.001"), Stop(0.1, "0.1"))),
    ), ("D. Kingma, J. Ba: Adam: a method for stochastic optimization. ICLR 2015",))  # fmt: skip


LEAD = """Adam gives every weight a step size of its own: the gradient's running mean, divided by
the root of the running mean of its square."""
