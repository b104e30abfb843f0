"""From one implementation to another: where they differ, by how much, and how to get the other's behaviour.

Two records are laid over each other case by case. Where an implementation passes, it answers what its dialect
expects, so both answers can be computed again; where it fails, the record says what was answered. What to do
about a difference stands in ``data/advice.toml``, by operation, dial and setting.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

from conformance import fixtures
from conformance.cases import Case
from conformance.compare import compare, differs
from conformance.formats import resolve
from conformance.operation import (
    Expectation,
    Operation,
    Setting,
    leaves,
    map_tensors,
    sizes,
    write,
)  # fmt: skip
from conformance.operations import load
from conformance.recorded import Record, Tally, tensor_text, written

ADVICE = Path(__file__).parent / "data" / "advice.toml"
TRIED = 20
"""Cases of a difference that are computed again: the smallest ones."""
SMALL = 8
"""Elements up to which an answer is written out."""


@dataclass
class Difference:
    """One way in which two implementations part, in one operation."""

    title: str
    cases: list[str]
    size: str = ""
    example: str = ""
    question: str = ""
    """Inputs and parameters of the example."""
    answers: tuple[str, str] = ("", "")
    advice: list[tuple[int, str]] = field(default_factory=list)
    """What to do to get the behaviour of the first (0) or second (1) from the other."""


@dataclass
class Parting:
    """How two implementations differ in one operation."""

    operation: str
    both: int
    """Cases that both were asked."""
    differing: int
    found: list[Difference]


@dataclass
class Comparison:
    """How two implementations differ in everything."""

    alike: list[str]
    parting: list[Parting]
    only: tuple[list[str], list[str]]
    """What only the first, and only the second has."""


def comparison(one: Record, other: Record, operations: Iterable[str]) -> Comparison:
    """Return where two implementations differ, in the operations given."""
    result = Comparison([], [], ([], []))
    for name in operations:
        a, b = one.operations.get(name), other.operations.get(name)
        has = bool(a and a.asked), bool(b and b.asked)
        if not any(has):
            continue
        if not (a and b and all(has)):
            result.only[1 if has[1] else 0].append(name)
            continue
        parting = _parting(load(name), (one, other), (a, b))
        if parting.found:
            result.parting.append(parting)
        elif parting.both:
            result.alike.append(name)
    return result


def _parting(
    operation: Operation, who: tuple[Record, Record], tallies: tuple[Tally, Tally]
) -> Parting:
    cases = {case.id: case for case in fixtures.read(operation)}
    dials: dict[frozenset[str], list[Case]] = {}
    failures: dict[tuple[int, str], list[Case]] = {}
    both = 0

    def unequal(name: str) -> bool:
        default = operation.dial(name).default
        a, b = (tally.dialect.get(name, default) for tally in tallies)
        return bool(a != b)

    for case_id, case in cases.items():
        outcomes = tallies[0].outcome(case_id), tallies[1].outcome(case_id)
        if outcomes[0] is None or outcomes[1] is None:
            continue
        both += 1
        wrong = [i for i, outcome in enumerate(outcomes) if (outcome or "").startswith("!")]
        if wrong:
            if len(wrong) == 2 and _fail_alike(tallies, case_id):
                continue
            if len(wrong) == 1 and _same_after_all(operation, tallies, wrong[0], case):
                continue
            entry = tallies[wrong[0]].failing[case_id]
            reason = entry.get("reason") or entry["status"].replace("_", " ")
            failures.setdefault((wrong[0], reason), []).append(case)
        elif outcomes[0] != outcomes[1]:
            tokens = set(outcomes[0].split()) ^ set(outcomes[1].split())
            if apart := frozenset(filter(unequal, (token.partition("=")[0] for token in tokens))):
                dials.setdefault(apart, []).append(case)
    found = _by_dial(operation, who, tallies, dials)
    for (index, reason), group in failures.items():
        found.append(_failure(operation, who, tallies, index, reason, group))
    differing = len({case_id for difference in found for case_id in difference.cases})
    return Parting(operation.id, both, differing, found)


def _fail_alike(tallies: tuple[Tally, Tally], case_id: str) -> bool:
    a, b = (tally.failing.get(case_id, {}) for tally in tallies)
    unrefused = [e.get("message", "").startswith("must be refused") for e in (a, b)]
    return all(unrefused) or (bool(a.get("got")) and a.get("got") == b.get("got"))


def _same_after_all(
    operation: Operation, tallies: tuple[Tally, Tally], wrong: int, case: Case
) -> bool:
    """Say whether what one answered wrongly is what the other's dialect asks for."""
    got = tallies[wrong].failing[case.id].get("got", "")
    right = fixtures.expectation(operation, case, tallies[1 - wrong].dialect)
    if right.rejects is not None:
        return got == "refused"
    return got == written(map_tensors(lambda leaf: leaf.tensor, right.outputs))


# --- differences of dials -------------------------------------------------------------------------


def _by_dial(
    operation: Operation,
    who: tuple[Record, Record],
    tallies: tuple[Tally, Tally],
    groups: Mapping[frozenset[str], list[Case]],
) -> list[Difference]:
    alone = {next(iter(names)) for names in groups if len(names) == 1}
    found: dict[frozenset[str], list[tuple[int, Case]]] = {}
    for names, cases in groups.items():
        # Where several act at once, each is told by the cases in which it acts alone, if there are any.
        parts = [frozenset({name}) for name in names] if names <= alone else [names]
        for part in parts:
            found.setdefault(part, []).extend((len(names), case) for case in cases)
    result = []
    for names, members in found.items():
        members.sort(key=lambda pair: (pair[0], *_simplicity(pair[1])))
        cases = [case for _, case in members]
        alone_in = [case for count, case in members if count == members[0][0]]
        difference = _difference(operation, who, tallies, names, cases, alone_in)
        if difference:
            result.append(difference)
    return sorted(result, key=lambda difference: -len(difference.cases))


def _simplicity(case: Case) -> tuple[int, bool]:
    return sizes(case.inputs), not case.id.endswith("-f32")


def _difference(
    operation: Operation,
    who: tuple[Record, Record],
    tallies: tuple[Tally, Tally],
    names: frozenset[str],
    cases: list[Case],
    telling: list[Case],
) -> Difference | None:
    """Tell of one dial, or of several that act together; ``telling``: where no other acts too."""
    settings = tallies[0].dialect, tallies[1].dialect
    values = [
        ", ".join(_said(operation, name, setting) for name in sorted(names)) for setting in settings
    ]
    title = f"{', '.join(sorted(names))}: {who[0].name} {values[0]}, {who[1].name} {values[1]}"
    difference = Difference(title, [case.id for case in cases])
    largest, words = 0.0, ""
    for case in telling[:TRIED]:
        a, b = (fixtures.expectation(operation, case, setting) for setting in settings)
        if not differs(a, b):
            continue
        if not difference.example:
            difference.example = case.full_id
            difference.question = question(case)
            difference.answers = _texts(a, b)
        size, kind = effect(a, b)
        largest, words = max(largest, size), words or kind
    if not difference.example:
        return None
    kept, kinds = _recorded(*tallies, telling)
    largest = max(largest, kept)
    difference.size = f"up to {largest:.2g}" if largest else words or kinds
    if largest and (words or kinds):
        difference.size += f", {words or kinds}"
    for name in sorted(names):
        for index in (0, 1):
            if text := advice(operation, name, settings[index], who[1 - index].name):
                difference.advice.append((index, text))
    return difference


def _said(operation: Operation, name: str, setting: Setting) -> str:
    """Return a dial's value, with the epsilon that goes with a place of an epsilon."""
    dial = operation.dial(name)
    value = setting.get(name, dial.default)
    beside = f"{name.removesuffix('_at')}"
    if name.endswith("eps_at") and value != dial.default and beside in setting:
        return f"{write(value)} ({write(setting[beside])})"
    return write(value)


def _recorded(first: Tally, second: Tally, cases: Iterable[Case]) -> tuple[float, str]:
    """Return the largest effect on record where the first is canonical, and one without a number."""
    largest, words = 0.0, ""
    for case in cases:
        if first.outcome(case.id) == "":
            for effects in second.diverging.values():
                size = effects.get(case.id, 0.0)
                if isinstance(size, str):
                    words = words or size
                else:
                    largest = max(largest, size)
    return largest, words


def effect(a: Expectation, b: Expectation) -> tuple[float, str]:
    """Return how far the second answer is from the first: relative to its largest number, or in words."""
    if a.rejects is not None or b.rejects is not None:
        return 0.0, "refused"
    outputs = map_tensors(lambda leaf: leaf.tensor, b.outputs)
    compared = compare(outputs, a)
    if math.isfinite(compared.effect):
        return compared.effect, ""
    where = compared.differences[0].where if compared.differences else ""
    dtype = where.endswith((" dtype", " shape"))
    return 0.0, f"another {where.rpartition(' ')[2]}" if dtype else "NaN or inf"


def _texts(a: Expectation, b: Expectation) -> tuple[str, str]:
    """Return both answers in decimals: of small outputs all that differ, of large ones the first element."""
    if a.rejects is not None or b.rejects is not None:
        return _text(a), _text(b)
    outputs = map_tensors(lambda leaf: leaf.tensor, b.outputs)
    expected = dict(leaves(a.outputs))
    texts: tuple[list[str], list[str]] = ([], [])
    for difference in compare(outputs, a).differences[:2]:
        path = _path(difference.where, expected)
        leaf, other = expected.get(path), dict(leaves(outputs)).get(path)
        if leaf is None or leaf.tensor.size <= SMALL:
            parts = tensor_text(leaf and leaf.tensor), tensor_text(other)
            texts[0].append(f"{path} {parts[0]}")
            texts[1].append(f"{path} {parts[1]}")
        else:
            texts[0].append(f"{difference.where} {difference.expected}")
            texts[1].append(f"{difference.where} {difference.got}")
    return "; ".join(texts[0]), "; ".join(texts[1])


def _path(where: str, known: Iterable[str]) -> str:
    return max((path for path in known if where.startswith(path)), key=len, default=where)


def _text(expectation: Expectation) -> str:
    if expectation.rejects is not None:
        return f"refuses: {expectation.rejects}"
    tensors = {path: leaf and leaf.tensor for path, leaf in leaves(expectation.outputs)}
    return shortened(f"{path} {tensor_text(tensor)}" for path, tensor in tensors.items())


def shortened(parts: Iterable[str], length: int = 200) -> str:
    """Return parts with ``;`` between them, as many as fit; at least the first."""
    parts = list(parts)
    for count in range(len(parts), 1, -1):
        text = "; ".join(parts[:count])
        if len(text) <= length:
            break
    else:
        count, text = 1, "; ".join(parts[:1])
    return text if count == len(parts) else f"{text}; … {len(parts)} in all"


def question(case: Case) -> str:
    """Return a case's inputs and parameters in decimals, on one line."""
    inputs = resolve(case.inputs)
    parts = [f"{path} {tensor_text(leaf)}" for path, leaf in leaves(inputs)]
    given = fixtures.parameters(case.params)
    return shortened([*parts, *(f"{k} = {v}" for k, v in given.items() if v is not None)], 240)


# --- failures ---------------------------------------------------------------------------------------


def _failure(
    operation: Operation,
    who: tuple[Record, Record],
    tallies: tuple[Tally, Tally],
    index: int,
    reason: str,
    cases: list[Case],
) -> Difference:
    case = min(cases, key=_simplicity)
    answers = []
    for tally in tallies:
        entry = tally.failing.get(case.id)
        if entry is None:
            answers.append(_text(fixtures.expectation(operation, case, tally.dialect)))
        else:
            told = entry.get("got") or entry.get("message", entry["status"])
            refused = told == "refused" and entry.get("message", "").startswith("refused")
            answers.append(shortened((entry["message"] if refused else told).split("; ")))
    found = Difference(f"{who[index].name} fails: {reason}", [c.id for c in cases])
    found.example, found.question = case.full_id, question(case)
    found.answers = answers[0], answers[1]
    return found


# --- advice -------------------------------------------------------------------------------------------


@cache
def _entries() -> list[dict[str, Any]]:
    return list(tomllib.loads(ADVICE.read_text(encoding="utf-8"))["advice"])


def advice(operation: Operation, name: str, setting: Setting, library: str) -> str:
    """Return how to get a setting of a dial from a library that has another; nothing if none is known."""
    value = setting.get(name, operation.dial(name).default)
    key = write(value)
    for entry in _entries():
        if entry["dial"] != name or not fnmatchcase(operation.id, entry["operations"]):
            continue
        own = entry.get("in", {}).get(library, {})
        text = own.get(key) or entry["to_get"].get(key) or entry["to_get"].get("*", "")
        prefix = name.rpartition(".")[0]
        known = {
            dial.name.removeprefix(f"{prefix}."): write(setting.get(dial.name, dial.default))
            for dial in operation.all_dials
            if dial.name.rpartition(".")[0] == prefix
        }
        return _filled(text, known | {"value": key})
    return ""


def _filled(text: str, values: Mapping[str, str]) -> str:
    for name, value in values.items():
        text = text.replace("{" + name + "}", value)
    return text
