"""Checks of a harness itself, before the implementation behind it is judged.

A harness is what reads requests and writes answers. Whether its numbers are right is asked by the suite; here
it is asked whether it speaks the protocol and whether tensors go in and come out bit by bit. Every check says
in one line what is wrong and in another how to mend it. The tensors themselves are in ``smoke_probes``.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from conformance import operations
from conformance.cases import Case
from conformance.judge import check_dialect, judge
from conformance.operations import load
from conformance.protocol import Crashed, Implementation, Process, TimedOut
from conformance.runner import request
from conformance.smoke_probes import KNOWN_DTYPES, Probe, echoes, hint, probes, questions

STOP_SECONDS = 10.0
LATE_SECONDS = 5.0
"""How long an answer that was not flushed is waited for once the input has ended."""


@dataclass(frozen=True)
class Check:
    """One thing that was looked at; ``passed`` is None where it could not be."""

    name: str
    passed: bool | None
    said: str = ""
    mend: str = ""


class Conversation(Process):
    """A started harness that is asked line by line."""

    def say(self, *requests: Mapping[str, Any]) -> None:
        """Send requests without waiting for an answer."""
        for one in requests:
            self._send(json.dumps(one).encode() + b"\n")

    def hear(self, timeout: float | None = None) -> dict[str, Any]:
        """Return the next answer.

        Raises:
            Crashed, TimedOut: there is none, or it is not the protocol.
        """
        process = self._process
        if process is None:
            raise Crashed("is not running")
        line = self._next_line(process, timeout or self.timeout)
        if line is None:
            self._settle()
            code = process.poll()
            raise Crashed(f"ended with exit code {code}{self._and_context()}")
        return self._parsed(line)

    def end_input(self) -> None:
        """Close the harness's standard input, as a runner that is gone does."""
        if self._writer is not None:
            self._writer.join(timeout=1)
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()

    def ended(self, timeout: float) -> int | None:
        """Return the exit code once the process has ended by itself, None if it has not."""
        deadline = time.monotonic() + timeout
        while self._process is not None and time.monotonic() < deadline:
            if (code := self._process.poll()) is not None:
                return code
            time.sleep(0.02)
        return None

    def left_over(self) -> int:
        """Return how many lines have come that no request is waiting for."""
        time.sleep(0.1)
        return sum(1 for line in list(self._lines.queue) if line is not None)

    @staticmethod
    def _parsed(line: bytes) -> dict[str, Any]:
        try:
            answer = json.loads(line)
        except (ValueError, RecursionError):
            raise Crashed(f"answered what is not JSON: {line[:60]!r}") from None
        if not isinstance(answer, dict):
            raise Crashed(f"answered what is not an object: {line[:60]!r}")
        return answer


def smoke(command: list[str], timeout: float = 20.0) -> Iterator[Check]:
    """Start a harness and yield one check after the other.

    Args:
        command: how it is started.
        timeout: seconds for one answer.

    Raises:
        NotStarted: it does not start, or does not answer ``start``; nothing else can be asked then.
    """
    harness = Conversation(command, timeout)
    about = harness.start()
    yield Check("starts", True, f"{about.name} {about.version}, protocol 1")
    yield from _handshake(about)
    try:
        asked = questions(about)
        if not asked:
            yield Check(
                "asked", False, "no operation of the suite is listed: nothing more can be asked",
                "list what it implements in implementation.operations (secateurs list)",
            )  # fmt: skip
            return
        for checks in (_flushing, _order, _unknown, _malformed, _tensors, _computing, _written):
            yield from checks(harness, about, asked)
            if harness._process is None:
                harness.start()
        yield from _stopping(harness, asked[0])
    finally:
        harness.close()
    yield from _end_of_input(command, timeout)


# --- the answer to start --------------------------------------------------------------------------------


def _handshake(about: Implementation) -> Iterator[Check]:
    wanted = ("name", "version", "language", "language_version")
    empty = [name for name in wanted if not str(getattr(about, name)).strip()]
    yield Check(
        "says what it is", not empty, f"empty: {', '.join(empty)}" if empty else "",
        "fill them in the answer to start; versions decide which expected failures hold",
    )  # fmt: skip
    strange = [name for name in about.operations if name not in operations.names()]
    yield Check(
        "operations", not strange,
        f"unknown: {', '.join(strange)}" if strange else f"{len(about.operations)} listed",
        "use the ids of `secateurs list`; an operation with another id is never asked",
    )  # fmt: skip
    dtypes = {d for what in about.operations.values() for d in what.get("dtypes") or []}
    odd = sorted(dtypes - set(KNOWN_DTYPES))
    yield Check(
        "dtypes", not odd, f"unknown: {', '.join(odd)}" if odd else ", ".join(sorted(dtypes)),
        f"known are {', '.join(KNOWN_DTYPES)}",
    )  # fmt: skip
    yield _dialect(about)


def _dialect(about: Implementation) -> Check:
    for name, setting in about.dialect.items():
        mend = f"`secateurs explain {name}` lists its dials and their settings"
        if name not in about.operations:
            return Check("dialect", False, f"{name} has a dialect and is not listed", mend)
        if name not in operations.names():
            continue
        try:
            check_dialect(load(name), setting)
        except (ValueError, TypeError) as error:
            return Check("dialect", False, str(error), mend)
    declared = sum(bool(setting) for setting in about.dialect.values())
    return Check("dialect", True, f"declared for {declared} operations" if declared else "none")


# --- requests and answers -------------------------------------------------------------------------------


def _flushing(harness: Conversation, about: Implementation, asked: list[Case]) -> Iterator[Check]:
    name, mend = "answers at once", "flush standard output after every line"
    harness.say(request(asked[0]))
    try:
        answer = harness.hear()
    except TimedOut:
        harness.end_input()
        said = f"no answer within {harness.timeout:g} s"
        with contextlib.suppress(Crashed, TimedOut):
            harness.hear(LATE_SECONDS)
            said = "the answer came only when the input had ended"
        harness.close()
        yield Check(name, False, said, mend)
        return
    except Crashed as error:
        harness.close()
        yield Check(
            name, False, str(error),
            "print nothing but answers, one JSON object a line; notices go to standard error",
        )  # fmt: skip
        return
    same = answer.get("id") == asked[0].full_id
    yield Check(
        name, same, "" if same else f"the id is {answer.get('id')!r}, asked was {asked[0].full_id!r}",
        "send the id of the request back with its answer",
    )  # fmt: skip


def _order(harness: Conversation, about: Implementation, asked: list[Case]) -> Iterator[Check]:
    wanted = [f"smoke/{n}" for n in ("first", "second", "third")]
    harness.say(*({**request(asked[0]), "id": one} for one in wanted))
    got: list[Any] = []
    said = ""
    try:
        got += [harness.hear().get("id") for _ in wanted]
        if extra := harness.left_over():
            said = f"{extra} more lines than requests"
    except (Crashed, TimedOut) as error:
        said = str(error) or f"{len(got)} answers to {len(wanted)} requests"
    if got != wanted and not said:
        said = f"answered {', '.join(map(str, got))}"
    if said:
        harness.close()
    yield Check(
        "ids in order", not said, said,
        "answer each request with one line, in the order in which they come",
    )  # fmt: skip


def _ask(harness: Conversation, question: Mapping[str, Any]) -> dict[str, Any]:
    """Return an answer; what went wrong, under ``broken``, where there is none."""
    if harness._process is None:
        harness.start()
    harness.say(question)
    try:
        return harness.hear()
    except TimedOut:
        harness.close()
        return {"broken": f"no answer within {harness.timeout:g} s"}
    except Crashed as error:
        harness.close()
        return {"broken": str(error)}


def _status(answer: Mapping[str, Any]) -> str:
    known = ("outputs", "rejected", "unsupported", "errored", "broken")
    return next((name for name in known if name in answer), "no status")


def _unknown(harness: Conversation, about: Implementation, asked: list[Case]) -> Iterator[Check]:
    answer = _ask(harness, {**request(asked[0]), "operation": "smoke.unheard_of"})
    status = _status(answer)
    yield Check(
        "unknown operation", status == "unsupported",
        "" if status == "unsupported" else f"answered {answer.get('broken', status)}",
        'answer {"id": …, "unsupported": {"reason": …}} for an operation that it does not have',
    )  # fmt: skip


def _malformed(harness: Conversation, about: Implementation, asked: list[Case]) -> Iterator[Check]:
    good = request(asked[0])
    bad = {
        "no inputs": {name: good[name] for name in ("cmd", "id", "operation", "params")},
        "an unknown dtype": json.loads(
            json.dumps(good).replace(f'"{_dtype(asked[0])}"', '"float8"')
        ),
    }
    said = []
    for what, question in bad.items():
        answer = _ask(harness, question)
        if _status(answer) != "errored":
            said.append(f"{what}: {answer.get('broken', _status(answer))}")
    answer = _ask(harness, good)
    if "broken" in answer:
        said.append(f"the next request: {answer['broken']}")
    yield Check(
        "malformed request", not said, "; ".join(said),
        'catch every exception around a request and answer {"id": …, "errored": {"message": …}}',
    )  # fmt: skip


def _dtype(case: Case) -> str:
    text = json.dumps(request(case)["inputs"])
    return str(text.split('"dtype": "', 1)[1].split('"', 1)[0])


# --- tensors --------------------------------------------------------------------------------------------


def _tensors(harness: Conversation, about: Implementation, asked: list[Case]) -> Iterator[Check]:
    for probe in probes(about):
        if probe.case is None:
            yield Check(probe.name, None, probe.why)
            continue
        yield _probe(harness, about, probe, probe.case)


def _probe(harness: Conversation, about: Implementation, probe: Probe, case: Case) -> Check:
    answer = _ask(harness, request(case))
    status = _status(answer)
    if status == "unsupported":
        return Check(probe.name, None, f"{case.operation} calls it unsupported")
    if status != "outputs":
        detail = answer.get("broken") or json.dumps(answer.get(status, ""))[:120]
        return Check(probe.name, False, f"{case.operation}: {status}: {detail}", probe.mend)
    dialect = about.dialect.get(case.operation, {})
    try:
        verdict = judge(load(case.operation), case, dialect, answer)
    except (ValueError, TypeError, ArithmeticError) as error:
        return Check(probe.name, None, f"{case.operation} cannot be judged: {error}")
    if verdict.status == "passed":
        return Check(probe.name, True, f"through {case.operation}")
    return Check(
        probe.name, False, f"{case.operation}: {verdict.message}", hint(verdict, probe.mend)
    )


def _computing(harness: Conversation, about: Implementation, asked: list[Case]) -> Iterator[Check]:
    answers = [(case, _ask(harness, request(case))) for case in asked]
    given = [(case, answer["outputs"]) for case, answer in answers if "outputs" in answer]
    copies = [case.operation for case, outputs in given if echoes(case, outputs)]
    yield Check(
        "computes", None if not given else len(copies) < len(given),
        "" if len(copies) < len(given) else f"every output is an input: {', '.join(copies)}",
        "send the result back, not what came in",
    )  # fmt: skip
    for case, outputs in given[:3]:
        again = _ask(harness, request(case))
        if json.dumps(again.get("outputs")) != json.dumps(outputs):
            yield Check(
                "same again", False, f"{case.full_id} has another answer the second time",
                "keep no state from request to request, and write to no default or cached tensor",
            )  # fmt: skip
            return
    yield Check("same again", True if given else None)


def _written(harness: Conversation, about: Implementation, asked: list[Case]) -> Iterator[Check]:
    name = "inputs untouched"
    for case in asked:
        mutated = _ask(harness, request(case)).get("mutated") or []
        if not isinstance(mutated, list) or not set(map(str, mutated)) <= set(case.inputs):
            yield Check(
                name, False, f"{case.operation}: mutated is {json.dumps(mutated)[:60]}",
                f"mutated is a list of names of inputs, such as {json.dumps(list(case.inputs)[:1])}",
            )  # fmt: skip
            return
        in_place = about.dialect.get(case.operation, {}).get("in_place", "no")
        if mutated and in_place == "no":
            yield Check(
                name, False, f"{case.operation} writes to the caller's {', '.join(mutated)}",
                'if that is documented, declare the dial "in_place": "documented"; else copy first',
            )  # fmt: skip
            return
    yield Check(name, True)


# --- the end --------------------------------------------------------------------------------------------


def _stopping(harness: Conversation, case: Case) -> Iterator[Check]:
    harness.say({"cmd": "stop"})
    code = harness.ended(STOP_SECONDS)
    said = f"still running after {STOP_SECONDS:g} s" if code is None else f"exit code {code}"
    yield Check("stop", code == 0, "" if code == 0 else said, "leave the loop and exit with 0")


def _end_of_input(command: list[str], timeout: float) -> Iterator[Check]:
    harness = Conversation(command, timeout)
    harness.start()
    try:
        harness.end_input()
        code = harness.ended(STOP_SECONDS)
    finally:
        harness.close()
    yield Check(
        "end of input", code is not None, "" if code is not None else "still running",
        "leave the loop when standard input ends, so that no process outlives its runner",
    )  # fmt: skip
