"""LaTeX as MathML for the page and as one line of text for the terminal, with places for numbers.

A number that depends on the controls is written ``«name»``. In MathML it becomes ``<mn data-n="name">``,
which the page fills; in text it is replaced. The LaTeX that topics use is a small part of the language:
a command that :func:`text` does not know is an error, so that a test of all topics finds it.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from functools import cache

from latex2mathml.converter import convert

from adapters.study.model import StudyError

SIGNS = {
    "sum": "Σ", "sqrt": "√", "cdot": "·", "times": "×", "le": "≤", "ge": "≥", "ne": "≠", "approx": "≈",
    "lVert": "‖", "rVert": "‖", "lvert": "|", "rvert": "|", "leftarrow": "←", "to": "→", "infty": "∞",
    "partial": "∂", "nabla": "∇", "odot": "⊙", "in": "∈", "lambda": "λ", "theta": "θ", "beta": "β",
    "alpha": "α", "eta": "η", "varepsilon": "ε", "sigma": "σ", "lfloor": "⌊", "rfloor": "⌋", "lceil": "⌈",
    "rceil": "⌉", "min": "min", "max": "max", "cos": "cos", "tanh": "tanh", "log": "log", "exp": "exp",
    "dots": "…", "quad": "   ", "qquad": "     ", ",": " ", ";": " ", "!": "", "{": "{", "}": "}",
    "|": "‖", "pm": "±", "Rightarrow": "⇒", "top": "ᵀ", "prime": "′", "wedge": "and", "rho": "ρ", "mu": "μ",
        "bar": "",
    "Delta": "Δ", "tau": "τ", "neg": "not ", "%": "%", "circ": "°", "setminus": "∖", "arccos": "arccos",
}  # fmt: skip
NAMED = {"text", "mathrm", "operatorname", "mathbf"}
OPENING = {"lVert", "lvert", "lfloor", "lceil", "nabla", "partial", "Delta", "neg"}
CLOSING = {"rVert", "rvert", "rfloor", "rceil"}
_OPEN = r"<mo[^>]*>(?:\[|\(|&#x0005B;|&#x00028;|&#x0002C;|&#x0003D;|&#x000B7;|&#x000D7;)</mo>"
_SUP = str.maketrans("0123456789−+n", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺ⁿ")
_TOKEN = re.compile(r"\\([A-Za-z]+|.)|«[^»]*»|[{}_^]|\s+|.", re.DOTALL)


@cache
def mathml(latex: str, display: bool = True) -> str:
    """Return MathML; the places for numbers are ``<mn data-n="name"></mn>``."""
    marked = re.sub(r"«([^»]*)»", lambda found: rf"\text{{@{found[1]}@}}", latex)
    made = convert(marked, display="block" if display else "inline")
    made = re.sub(r"<mtext>@([^@]*)@</mtext>", r'<mn data-n="\1"></mn>', made)
    if "@" in made:
        raise StudyError(f"a place for a number was lost: {latex}")
    # A bar that grows with its content collides with accents; a sign is no subtraction.
    made = made.replace("<mo>&#x02016;</mo>", '<mo stretchy="false">&#x02016;</mo>')
    # Where a formula was cut, the sign at the start still stands between two terms.
    made = re.sub(
        r"(<math[^>]*><mrow>)<mo>(\+|=|&#x0002B;|&#x0003D;|&#x02212;)",
        r'\1<mo form="infix">\2',
        made,
    )
    made = re.sub(rf"({_OPEN})<mo>&#x02212;</mo>", r'\1<mo form="prefix">&#x02212;</mo>', made)
    return str(made.replace(' xmlns="http://www.w3.org/1998/Math/MathML"', ""))


@cache
def display(latex: str) -> str:
    """Return a formula on lines of its own, in pieces between which a narrow column may break it."""
    return " ".join(
        f'<span class="equation">{" ".join(map(_piece, pieces(equation)))}</span>'
        for equation in re.split(r"\\qquad|\\quad", latex)
    )


def _piece(latex: str) -> str:
    math = mathml(latex, False).replace("<math ", '<math displaystyle="true" ', 1)
    return f'<span class="piece">{math}</span>'


def pieces(latex: str) -> list[str]:
    """Return an equation cut before every ``=``, ``+`` and ``-`` that stands in no bracket."""
    depth, found = 0, [""]
    for match in re.finditer(r"\\[A-Za-z]+|\\.|«[^»]*»|.", latex, re.DOTALL):
        token = match[0]
        depth += token in ("{", "(", "[", r"\left")
        depth -= token in ("}", ")", "]", r"\right")
        before = found[-1].rstrip()[-1:]
        minus = token == "-" and (before in ("»", ")", "}") or before.isalnum())
        if not depth and (token in ("=", "+") or minus) and found[-1].strip():
            found.append("")
        found[-1] += token
    return [piece.strip() for piece in found if piece.strip()]


def text(latex: str, values: Mapping[str, str] | None = None) -> str:
    """Return LaTeX as one line that a terminal can show, its places filled with numbers."""
    tokens = [m[0] for m in _TOKEN.finditer(latex)]
    shown, rest = _sequence(tokens, 0, values or {}, closing="")
    assert rest == len(tokens)
    shown = re.sub(r" {2,}", lambda gap: "   " if len(gap[0]) > 2 else " ", shown)
    return re.sub(r"(min|max|log|exp) \(", r"\1(", shown).strip()


def inline(text_with_marks: str) -> str:
    """Return a paragraph as HTML: `code` and $formula$ are set, everything else is escaped."""
    parts = re.split(r"(`[^`]*`|\$[^$]*\$)", text_with_marks)
    return "".join(_inline(part) for part in parts)


def inline_text(text_with_marks: str) -> str:
    """Return a paragraph as plain text, its formulas in one line."""
    return re.sub(r"\$([^$]*)\$", lambda found: text(found[1]), text_with_marks).replace("`", "")


def _inline(part: str) -> str:
    if part.startswith("`"):
        return f"<code>{html.escape(part[1:-1])}</code>"
    if not part.startswith("$"):
        return html.escape(part, quote=False)
    # A sign that begins a formula within a sentence stands between no terms.
    return mathml(part[1:-1], False).replace(
        '<mo form="infix">&#x02212;', '<mo form="prefix">&#x02212;', 1
    )


def _sequence(
    tokens: list[str], at: int, values: Mapping[str, str], closing: str
) -> tuple[str, int]:
    out = ""
    while at < len(tokens):
        token = tokens[at]
        if token == closing:
            return out, at + 1
        if token in "_^" and len(token) == 1:
            part, at = _argument(tokens, at + 1, values)
            out += _raised(token, part)
            continue
        part, at = _one(tokens, at, values)
        out = out.rstrip() + part if token[1:] in CLOSING else out + part
    if closing:
        raise StudyError("a brace is not closed")
    return out, at


def _one(tokens: list[str], at: int, values: Mapping[str, str]) -> tuple[str, int]:
    token = tokens[at]
    if token == "{":
        return _sequence(tokens, at + 1, values, "}")
    if token.startswith("«"):
        return values[token[1:-1]], at + 1
    if not token.startswith("\\"):
        return (" " if token.isspace() else "−" if token == "-" else token), at + 1
    name = token[1:]
    if name in ("frac", "tfrac"):
        top, at = _argument(tokens, at + 1, values)
        bottom, at = _argument(tokens, at, values)
        shown = f"{_grouped(top)} / {_grouped(bottom)}"
        rest = "".join(tokens[at:]).lstrip()
        alone = not rest or rest.startswith(
            ("=", ",", ")", "+", "-", "}", r"\right", r"\quad", r"\;")
        )
        return (shown if alone else f"({shown})"), at
    if name in ("left", "right"):
        return ("" if tokens[at + 1] == "." else _one(tokens, at + 1, values)[0]), at + 2
    if name == "hat":
        part, at = _argument(tokens, at + 1, values)
        return f"{part}\u0302", at
    if name == "sqrt":
        part, at = _argument(tokens, at + 1, values)
        return f"√({part})", at
    if name in NAMED:
        return _argument(tokens, at + 1, values)
    if name not in SIGNS:
        raise StudyError(f"no text for \\{name}")
    if name in OPENING:
        # As TeX does: the space after a command ends its name and is no space.
        while at + 1 < len(tokens) and tokens[at + 1].isspace():
            at += 1
    return SIGNS[name] + (" " if name in ("min", "max", "cos", "log", "exp") else ""), at + 1


def _argument(tokens: list[str], at: int, values: Mapping[str, str]) -> tuple[str, int]:
    while tokens[at].isspace():
        at += 1
    return _one(tokens, at, values)


def _grouped(part: str) -> str:
    part = part.strip()
    return f"({part})" if re.search(r"[ +·×−/-]", part.lstrip("-−")) else part


def _raised(sign: str, part: str) -> str:
    if sign == "^":
        small = part.translate(_SUP)
        plain = all(c in "0123456789−+n" for c in part)
        return small if plain else part if part in ("′", "ᵀ", "°") else f"^{_grouped(part)}"
    return f"_{part}" if len(part) == 1 or part.isalnum() else f"_({part})"
