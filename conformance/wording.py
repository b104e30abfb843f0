"""How a diagnosis says what an implementation behaves like."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from conformance.operation import Mistake, Operation, Setting, write


def departure(operation: Operation, dialect: Setting, setting: Setting) -> dict[str, Any]:
    """Return the dials of a setting that are not as declared."""
    return {
        dial.name: setting.get(dial.name, dial.default)
        for dial in operation.all_dials
        if setting.get(dial.name, dial.default) != dialect.get(dial.name, dial.default)
    }


def describe(
    operation: Operation, dialect: Setting, setting: Setting, mistake: Mistake | None
) -> str:
    """Return what stands after "behaves like": dials that are not as declared, who shares them, a mistake."""
    changed = departure(operation, dialect, setting)
    settings = ", ".join(_phrases(operation, changed, setting))
    if mistake is not None:
        link = f" ({mistake.links[0]})" if mistake.links else ""
        words = f'the known mistake "{mistake.name}": {mistake.description}{link}'
        return f"{words}, with {settings}" if settings else words
    whole = next((name for name, named in operation.dialects.items() if named == setting), "")
    if whole and len(changed) > 2:
        return f"{operation.id} as {whole} has it: {settings}"
    sharing = [
        name
        for name, named in operation.dialects.items()
        if all(_same(operation, named, dial, value) for dial, value in changed.items())
    ]
    also = f" (as {' and '.join(sharing)})" if sharing else ""
    return f"{operation.id} with {settings}{also}"


def _same(operation: Operation, setting: Setting, name: str, value: Any) -> bool:
    return bool(setting.get(name, operation.dial(name).default) == value)


def _phrases(operation: Operation, changed: Mapping[str, Any], setting: Setting) -> Iterator[str]:
    """Yield what each changed dial does, in the dial's own words where it has some."""
    said: set[str] = set()
    phrases = []
    for name, value in changed.items():
        dial = operation.dial(name)
        prefix = name.rpartition(".")[0]
        words = dial.words.get(value, "")
        beside = {
            other.name.removeprefix(f"{prefix}."): write(setting.get(other.name, other.default))
            for other in operation.all_dials
            if other.name.rpartition(".")[0] == prefix
        }
        said |= {f"{prefix}.{n}".lstrip(".") for n in beside if "{" + n + "}" in words}
        phrases.append((name, words.format(**beside) or f"{name} = {write(value)}"))
    return (phrase for name, phrase in phrases if name not in said)


def first_few(words: Iterable[str], most: int) -> list[str]:
    """Return different words once each: the first ``most``, and how many more there are."""
    different = list(dict.fromkeys(words))
    more = len(different) - most
    return [*different[:most], *([f"and {more} more"] if more > 0 else [])]
