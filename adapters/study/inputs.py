"""Tensors of a user's own: read from a file, and a topic made of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from safetensors import SafetensorError, deserialize

from adapters.study import clips
from adapters.study.clips import angle_words, cosine_words, direction, flat
from adapters.study.excerpts import excerpt
from adapters.study.model import Choice, Control, Fill, Stage, Stop, StudyError, Table, Topic, slots
from adapters.study.numbers import exact, rounded, vector
from conformance.formats import FLOATS, FormatError, dtype_of, name_of
from refimpl import clipping, norms

SAFETENSORS = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
SHARES = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0, 1.1)
LONGEST = 20
SUBSTITUTED = 6
"""So many elements a formula shows."""
"""Tensors that a table lists."""
Tensors = dict[str, Any]


def read(path: Path) -> Tensors:
    """Return the tensors of a .npy, .npz or .safetensors file by name.

    Raises:
        StudyError: no such file, a damaged one, or one without floating-point tensors.
    """
    readers: dict[str, Callable[[Path], Tensors]] = {
        ".npy": lambda p: {p.stem: np.load(p, allow_pickle=False)},
        ".npz": _npz,
        ".safetensors": _safetensors,
    }
    if path.suffix not in readers:
        raise StudyError(f"{path}: expected a .npy, .npz or .safetensors file")
    try:
        found = readers[path.suffix](path)
    except OSError as error:
        raise StudyError(f"{path}: {error.strerror or 'is damaged: ' + _line(error)}") from None
    except (ValueError, EOFError, BadZipFile, SafetensorError, FormatError, KeyError) as error:
        raise StudyError(f"{path}: is damaged: {_line(error)}") from None
    for name, tensor in found.items():
        if not isinstance(tensor, np.ndarray) or name_of(tensor.dtype) not in FLOATS:
            kind = getattr(tensor, "dtype", type(tensor).__name__)
            raise StudyError(f"{path}: {name} is {kind}, expected floating-point numbers")
    if not any(tensor.size for tensor in found.values()):
        raise StudyError(f"{path}: holds no numbers")
    return found


def _npz(path: Path) -> Tensors:
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def _safetensors(path: Path) -> Tensors:
    return {
        name: np.frombuffer(
            entry["data"], dtype_of(SAFETENSORS.get(entry["dtype"], entry["dtype"]))
        ).reshape(entry["shape"])
        for name, entry in deserialize(path.read_bytes())
    }


def _line(error: Exception) -> str:
    if "pickle" in str(error):  # what NumPy says of any bytes that it does not know
        return "neither an array of numbers nor an archive of them"
    return " ".join(str(error).split())[:120]


def topic(name: str, path: Path, threshold: float | None = None) -> Topic:
    """Return the topic ``value``, ``norm`` or ``global_norm`` on the tensors of a file."""
    if name not in CLIPS:
        raise StudyError(f"--input goes with the topics {', '.join(CLIPS)}, not with {name}")
    if threshold is not None and not threshold >= 0:
        raise StudyError(f"the threshold must be a number >= 0, got {threshold}")
    tensors = read(path)
    clip, formula, code, title = CLIPS[name]
    grads = list(tensors.values())
    n = float(clipping.global_norm(grads))
    largest = float(np.max(np.abs(flat(grads)).astype(np.float64), initial=0.0))
    scale = largest if name == "value" else n
    if not math.isfinite(scale):
        raise StudyError(f"{path}: the norm is {rounded(scale)}, so there is nothing to study")
    control = _control(scale, threshold)
    source = path.name

    def norm(choice: Choice) -> Fill:
        rows = [
            (f"`{key}`", f"{name_of(t.dtype)} {list(t.shape)}", vector(t, 6), exact(clipping.global_norm([t])))
            for key, t in list(tensors.items())[:LONGEST]
        ]  # fmt: skip
        rows.append(
            (
                "all together",
                f"{flat(grads).size:,} elements",
                "",
                exact(clipping.global_norm(grads)),
            )
        )
        shown = [rounded(float(g), 3) for g in flat(grads)[:SUBSTITUTED]]
        first = " + ".join(f"({g})^2" if g.startswith("−") else f"{{{g}}}^2" for g in shown)
        more = r" + \dots" if flat(grads).size > SUBSTITUTED else ""
        return Fill(
            rf"n = \sqrt{{{first}{more}}} = «n»",
            {"n": exact(clipping.global_norm(grads))},
            f"{len(tensors)} tensor{'s' * (len(tensors) != 1)}, {flat(grads).size:,} elements.",
            (Table("Norms", ("tensor", "type", "elements", "2-norm"), tuple(rows)),),
        )

    def clipped(choice: Choice) -> Fill:
        c = choice["threshold"]
        after = clip(grads, c)
        cosine, degrees = direction(grads, after)
        changed = int(np.sum(flat(grads) != flat(after)))
        top = largest or 1.0
        t, i = _largest(grads)
        used = [grads[t]] if name == "norm" else grads
        values = {
            "c": exact(c),
            "n": exact(clipping.global_norm(used)),
            "g": exact(grads[t].ravel()[i]),
            "a": exact(after[t].ravel()[i]),
        }
        return Fill(
            formula[1],
            {slot: values[slot] for slot in slots(formula[1])},
            f"{changed:,} of {flat(grads).size:,} elements change; the norm is "
                f"{exact(clipping.global_norm(after))}"
            f" now, and the gradient turns by {angle_words(degrees)} (cosine {cosine_words(cosine)}).",
            (
                clips.histogram("Elements before and after", flat(grads), flat(after), -top, top, 41),
                Table("The first elements", ("tensor", "before", "after"), tuple(
                    (f"`{key}`", vector(t, 6), vector(a, 6))
                    for (key, t), a in list(zip(tensors.items(), after, strict=True))[:LONGEST])),
            ),
        )  # fmt: skip

    return Topic(
        name,
        f"{title}: {path.name}",
        "Tensors of your own, clipped by refimpl.",
        (
            Stage("norms", "The norms", "The 2-norm of every tensor, and of all together.",
                  r"n = \sqrt{\sum_i g_i^2}",
                  (excerpt(norms.scaled_norm, "squares = sum_of_squares", "norm = scalar"),), source, norm),
            Stage("clip", "The clip", "Move the threshold. The numbers are those of the largest element.",
                  formula[0], (code,), source, clipped,
                ("threshold",)),
        ),
        (control,),
    )  # fmt: skip


def _largest(grads: list[Any]) -> tuple[int, int]:
    """Return which tensor holds the largest magnitude, and where in it."""
    tops = [float(np.max(np.abs(g).astype(np.float64), initial=-1.0)) for g in grads]
    t = int(np.argmax(tops))
    return t, int(np.argmax(np.abs(grads[t]).astype(np.float64)))


def _control(scale: float, threshold: float | None) -> Control:
    chosen = scale / 2 if threshold is None else threshold
    notes = {chosen: "yours" if threshold is not None else "half", scale: "the break point"}
    values = sorted({share * scale for share in SHARES} | {chosen})
    stops = tuple(Stop(v, exact(v), notes.get(v, "")) for v in values)
    return Control("threshold", "threshold c", stops, "slider", values.index(chosen))


def _value(grads: list[Any], c: float) -> list[Any]:
    return list(clipping.clip_value(grads, min=-c, max=c))


def _own_norms(grads: list[Any], c: float) -> list[Any]:
    return list(clipping.clip_norm(grads, c)[0])


_SCALED = r"\hat g = g \cdot \min\left(1, \frac{c}{n}\right)"
_FILLED = r"\hat g = «g» \cdot \min\left(1, \frac{«c»}{«n»}\right) = «a»"
CLIPS: dict[str, Any] = {
    "value": (
        _value,
        (r"\hat g_i = \min(\max(g_i, -c), c)", r"\hat g = \min(\max(«g», -«c»), «c») = «a»"),
        excerpt(clipping._limited, "limited = xp.where"),
        "Value clip",
    ),
    "norm": (_own_norms, (_SCALED.replace("n}", "n_t}"), _FILLED),
             excerpt(clipping.clip_norm, "norms = [", "for g, n in zip"), "Norm clip"),
    "global_norm": (
        clips.by_global_norm,
        (_SCALED, _FILLED),
        excerpt(clipping.measure_global_norm, "scale = clipper"),
        "Global-norm clip",
    ),
}  # fmt: skip
