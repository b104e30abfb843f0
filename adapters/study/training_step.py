"""One whole training step, stage by stage, as the trainer's trace records it."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from adapters.study import prunes
from adapters.study.cases import case
from adapters.study.excerpts import excerpt
from adapters.study.model import Choice, Control, Excerpt, Fill, Stage, Stop, Table, Topic
from adapters.study.numbers import exact
from refimpl import clipping, optimizers, trainer

RUNS = {
    "accumulated, scaled, masked (AdamW)": "train.step/adamw-accumulation-scale-masks-f32",
    "with an infinite gradient (momentum)": "train.step/skip-momentum-f32",
}


@cache
def trace(full_id: str) -> tuple[trainer.Plan, trainer.Trace, trainer.State]:
    """Return the plan of a case, what the trainer recorded, and the state at the end."""
    chosen = case(full_id)
    plan = trainer.Plan(**chosen.params)
    record = trainer.Trace()
    state = trainer.start(plan, list(chosen.inputs["params"]), chosen.inputs.get("masks"))
    for micro_grads in chosen.inputs["grads"]:
        state = trainer.train_step(plan, state, [list(g) for g in micro_grads], record)
    return plan, record, state


def _at(choice: Choice) -> tuple[trainer.Plan, dict[str, dict[str, Any]], list[Any]]:
    """Return the plan, the chosen step's records by stage, and the micro-batches' gradients."""
    full_id = RUNS[choice["run"]]
    plan, record, _ = trace(full_id)
    stages = {stage: values for step, stage, values in record.records if step == choice["step"]}
    return plan, stages, list(case(full_id).inputs["grads"][choice["step"]])


def _before(choice: Choice) -> list[Any]:
    full_id = RUNS[choice["run"]]
    if choice["step"] == 0:
        return list(case(full_id).inputs["params"])
    return list(trace(full_id)[1].of("record", "params")[choice["step"] - 1])


def _table(caption: str, **columns: list[Any]) -> Table:
    """Return the elements of several lists of tensors side by side."""
    first, *_ = columns.values()
    rows = []
    for t, tensor in enumerate(first):
        for at in np.ndindex(tensor.shape):
            rows.append(
                (f"`{t + 1}{list(at)}`", *(exact(column[t][at]) for column in columns.values()))
            )
    return Table(caption, ("element", *(name.replace("_", " ") for name in columns)), tuple(rows))


def _accumulate(choice: Choice) -> Fill:
    plan, stages, micro = _at(choice)
    grads = stages["accumulate"]["grads"]
    columns = {f"micro-batch_{i + 1}": list(m) for i, m in enumerate(micro)} | {"together": grads}
    terms = " + ".join(f"({exact(m[0].ravel()[0])})" for m in micro)
    return Fill(
        rf"g = \frac{{{terms}}}{{{len(micro)}}} = «g»",
        {"g": exact(grads[0].ravel()[0])},
        f"{len(micro)} micro-batches; their {plan.accumulate} is taken.",
        (_table("Gradients, still multiplied by the loss scale", **columns),),
    )


def _unscale(choice: Choice) -> Fill:
    plan, stages, _ = _at(choice)
    before, after = stages["accumulate"]["grads"], stages["unscale"]["grads"]
    return Fill(
        r"g = \frac{«b»}{«s»} = «a»",
        {
            "b": exact(before[0].ravel()[0]),
            "s": exact(plan.scale(choice["step"])),
            "a": exact(after[0].ravel()[0]),
        },
        "The clip must see the gradient in its true size: a clip before this division would clip by the "
        "wrong norm.",
        (_table("The division", before=before, after=after),),
    )


def _finite(choice: Choice) -> Fill:
    _, stages, _ = _at(choice)
    skipped = stages["finite_check"]["skipped"]
    norm = stages["penalty"]["total_norm"]
    says = "All gradients are finite: the step goes on."
    if skipped:
        says = (
            "A gradient is not finite. The step is skipped: weights, momentum and step count stay as "
            "they are."
        )
    return Fill(r"n = \lVert g \rVert = «n»", {"n": exact(norm)}, says,
                (_table("The gradient", gradient=stages["unscale"]["grads"]),))  # fmt: skip


def _clip(choice: Choice) -> Fill:
    plan, stages, _ = _at(choice)
    norm = stages["penalty"]["total_norm"]
    assert plan.clip is not None
    c = plan.clip["max_norm"]
    if "clip" not in stages:
        return Fill(r"n = «n»", {"n": exact(norm)}, "Skipped.")
    before, after = stages["penalty"]["grads"], stages["clip"]["grads"]
    return Fill(
        r"\hat g = «g» \cdot \min\left(1, \frac{«c»}{«n»}\right) = «r»",
        {
            "g": exact(before[0].ravel()[0]),
            "c": exact(c),
            "n": exact(norm),
            "r": exact(after[0].ravel()[0]),
        },
        f"The norm is {exact(clipping.global_norm(after))} after the clip.",
        (_table("The clip", before=before, after=after),),
    )


def _update(choice: Choice) -> Fill:
    plan, stages, _ = _at(choice)
    if "update" not in stages:
        return Fill(
            r"w \leftarrow w", {}, "Skipped: no weight moves, and the optimiser's step count stays."
        )
    before, after = _before(choice), stages["update"]["params"]
    w, moved = before[0].ravel()[0], after[0].ravel()[0]
    return Fill(
        r"w = «w» - («d») = «a»",
        {"w": exact(w), "d": exact(w - moved), "a": exact(moved)},
        f"The optimiser is {plan.optimizer['operation']} with learning rate {exact(plan.lr(choice['step']))}.",
        (_table("The weights", before=before, gradient=stages["clip"]["grads"], after=after),),
    )


def _mask(choice: Choice) -> Fill:
    _, stages, _ = _at(choice)
    masks = stages["record"]["masks"]
    if "mask" not in stages or any(m is None for m in masks):
        return Fill(r"w \leftarrow w", {}, "This run has no masks, or the step was skipped.")
    before, after = stages["update"]["params"], stages["mask"]["params"]
    moved = sum(int(np.sum((b != 0) & ~m)) for b, m in zip(before, masks, strict=True))
    return Fill(
        r"«b» \rightarrow «a»".replace(r"\rightarrow", r"\to"),
        {"b": exact(before[0].ravel()[1]), "a": exact(after[0].ravel()[1])},
        f"The update has moved {moved} pruned weights off zero; the mask puts +0.0 back, in the optimiser's "
            f"state too.",
        (_table("The weights", before=before, after=after),
         *(prunes.mask_grid(f"Parameter {t + 1}", p, m) for t, (p, m) in enumerate(zip(after, masks,
             strict=True)))),
    )  # fmt: skip


def _watch(choice: Choice) -> Fill:
    full_id = RUNS[choice["run"]]
    _, record, _ = trace(full_id)
    rows = tuple(
        (str(step), stage, ", ".join(values))
        for step, stage, values in record.records
        if step == choice["step"]
    )
    norm = next(
        v["total_norm"]
        for t, stage, v in record.records
        if stage == "penalty" and t == choice["step"]
    )
    return Fill(
        r"\text{listen}(\text{penalty}, «step», \text{norm } «norm»)",
        {"step": str(choice["step"]), "norm": exact(norm)},
        f"{len(rows)} stages were recorded at this step: everything on this page.",
        (Table("What the listener was told", ("step", "stage", "values"), rows),),
    )


def topic() -> Topic:
    """Return the page."""
    both = ("run", "step")
    source = ", ".join(RUNS.values())
    step = trainer.train_step
    parts = (
        ("accumulate", "Accumulate the micro-batches", """A batch that does not fit is cut into
            micro-batches; their gradients are averaged (or added), so that the step is the one the
            whole batch would have given.""",
            r"g = \frac{1}{m} \sum_{j} g^{(j)}", (excerpt(step, "grads = _masked", 'on_stage("accumulate"'),),
                _accumulate),
        ("unscale", "Undo the loss scale", """In low precision the loss is multiplied by a large
            number so that small gradients do not vanish. Here it is divided out again.""",
            r"g = \frac{g}{s}", (excerpt(step, "grads = _divided", 'on_stage("unscale"'),), _unscale),
        ("finite", "Is everything finite?", """One infinite or NaN element, and the step would
            poison all weights. So it is skipped, and nothing changes. It is the only question the
            step asks of the device.""",
            r"n = \lVert g \rVert < \infty", (excerpt(step, "finite = math", "return replace"),), _finite),
        ("clip", "Clip", "The global-norm clip; its own page takes it apart.",
            r"\hat g = g \cdot \min\left(1, \frac{c}{n}\right)", (excerpt(step, "clipped = clip()",
                'on_stage("clip"'),), _clip),
        ("update", "Update", "The optimiser sees the clipped gradient, never the raw one.",
            r"w \leftarrow w - \Delta", (excerpt(step, "lr = plan.lr", 'on_stage("update"'),), _update),
        ("mask", "Mask", "Pruned weights go back to +0.0, and so does what the optimiser remembers of them.",
            r"w \leftarrow w \;\text{if}\; m \;\text{else}\; 0",
            (excerpt(step, "params = [p if m is None", 'on_stage("mask"'), excerpt(optimizers.mask_state,
                'if name != "step"', "for array")), _mask),
        ("watch", "Watch any run yourself", """`on_stage` is a function that the trainer calls with
            the name of each stage, the step, and what came out. This page is made with `Trace`,
            which keeps everything. The lines below watch the norm of a run of your own: put them into
            your program.""",
            r"\text{listen}(\text{stage}, \text{step}, \text{values})",
            (YOURS, excerpt(trainer.Trace.__call__, "self.records"), excerpt(step, 'on_stage("penalty"')),
                _watch),
    )  # fmt: skip
    return Topic("step", "One whole training step", LEAD, tuple(
        Stage(name, title, text, formula, code, source, fill, both) for name, title, text, formula, code,
            fill in parts
    ), (
        Control("run", "run", tuple(Stop(name, name) for name in RUNS)),
        Control("step", "step", tuple(Stop(t, str(t)) for t in range(_steps())), "slider"),
    ))  # fmt: skip


YOURS = Excerpt(
    "your own program",
    1,
    (
        "def listen(stage, step, values):",
        '    if stage == "penalty":',
        '        print(step, values["total_norm"])',
        "",
        "trainer.train(model, loss, plan, state, batches, listen)",
    ),
)


def _steps() -> int:
    return min(len(case(full_id).inputs["grads"]) for full_id in RUNS.values())


LEAD = """A training step is more than “subtract the gradient”: gradients are accumulated, unscaled,
checked, clipped, handed to the optimiser, and the result is masked. The order matters, and it is
always this one."""
