"""One implementation in a process of its own, asked over JSON lines.

Whatever the process does — answer nonsense, die, hang, flood a stream, leave children behind — costs the
case that was asked and nothing else: :meth:`Process.ask` raises, and the next question starts afresh.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from conformance.memory import Watch

PROTOCOL = 1
DEFAULT_MEMORY = 8192
"""MiB that a process and its children may have: several times what any framework needs for a case."""
LONGEST_LINE = 256 * 2**20
GLANCE_SECONDS = 0.2
"""How long a silent process is waited for before looking whether it is still alive."""
STOP_SECONDS = 5.0
NOT_INSTALLED = 3
"""Exit code with which an adapter says, before its first answer, that its framework is not there."""


class NotStarted(Exception):
    """The implementation could not be started; the message says why and what to do."""


class NotInstalled(NotStarted):
    """The adapter is there, the library that it adapts is not."""


class Interrupted(Exception):
    """The event given to the process was set: the user wants to stop."""


class Crashed(Exception):
    """The process ended, or answered something that is not the protocol."""


class AnsweredTwice(Exception):
    """There was another answer for the case before, so nothing can be said of this one yet."""

    def __init__(self, case_id: str) -> None:
        """Remember the case that was answered twice."""
        super().__init__(f"answered {case_id} twice")
        self.case_id = case_id


class TimedOut(Exception):
    """No answer within the time limit."""


@dataclass(frozen=True)
class Implementation:
    """What an implementation says of itself."""

    name: str
    version: str
    language: str
    language_version: str
    homepage: str = ""
    dialect: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    operations: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


class Process:
    """A started implementation."""

    def __init__(
        self,
        command: Sequence[str],
        timeout: float,
        start_timeout: float = 120.0,
        interrupt: threading.Event | None = None,
        memory: int = DEFAULT_MEMORY,
    ) -> None:
        """Remember how to start; nothing runs until :meth:`start`. ``memory`` is in MiB, 0 is no limit."""
        self.command = list(command)
        self.timeout = timeout
        self.start_timeout = start_timeout
        self.memory = memory
        self.interrupt = interrupt or threading.Event()
        self._answered: str | None = None
        self._writer: threading.Thread | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._watch: Watch | None = None
        self._lines: queue.Queue[bytes | None] = queue.Queue()
        self._errors: deque[str] = deque(maxlen=20)

    def start(self) -> Implementation:
        """Start the process and return what it says of itself; NotStarted if it cannot."""
        try:
            self._spawn()
        except OSError as error:
            raise NotStarted(f"cannot run {self.command[0]}: {error.strerror}") from None
        try:
            answer = self._exchange({"cmd": "start", "protocol": PROTOCOL}, self.start_timeout)
        except Crashed as error:
            code = self._process.poll() if self._process else None
            context = self._context()
            reason = f"{error}{self._and_context()}"
            self.close()
            if code == NOT_INSTALLED and context:
                raise NotInstalled(context) from None
            raise NotStarted(reason) from None
        except TimedOut:
            self.close()
            raise NotStarted(f"no answer to start within {self.start_timeout:g} s") from None
        try:
            return _implementation(answer)
        except NotStarted:
            self.close()
            raise
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            self.close()
            raise NotStarted(f"the answer to start is malformed: {error!r}") from None

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Return the answer to one ``run`` request; starts the process again if it is gone.

        Raises:
            Crashed, TimedOut: the process is stopped; the message has the end of its standard error.
            AnsweredTwice: the process is stopped; the fault is that of an earlier case, so ask again.
        """
        if self._process is None:
            try:
                self.start()
            except NotStarted as error:
                raise Crashed(f"could not be started again: {error}") from None
        try:
            answer = self._exchange(request, self.timeout)
            given = answer.get("id")
            if given != request["id"] and given is not None and given == self._answered:
                self.close()
                raise AnsweredTwice(given)
            if given != request["id"]:
                raise Crashed(f"answered for {given!r}")
            if self._watch is not None and self._watch.look():
                # Its answer may be right; that there is no memory left is not the next one's fault.
                raise Crashed(self._watch.reason)
            self._answered = given
            return answer
        except Crashed as error:
            self._settle()
            message = f"{error}{self._and_context()}"
            self.close()
            raise Crashed(message) from None
        except TimedOut:
            context = self._and_context()
            self.close()
            raise TimedOut(f"no answer within {self.timeout:g} s{context}") from None

    def stop(self) -> str:
        """Ask the process to stop; kill it if it does not.

        Returns:
            What was wrong with the way it stopped, or an empty string.

        Raises:
            AnsweredTwice: a second answer for the last case was left over.
        """
        process, complaint = self._process, ""
        if process is None:
            return ""
        self._send(b'{"cmd":"stop"}\n', last=True)
        try:
            if code := process.wait(timeout=STOP_SECONDS):
                complaint = f"after stop it {_ending(code)}, not 0{self._and_context()}"
        except subprocess.TimeoutExpired:
            complaint = f"did not stop within {STOP_SECONDS:g} s and was killed"
        lines, answered = self._lines, self._answered
        self.close()
        with contextlib.suppress(queue.Empty, Crashed):
            while line := lines.get(timeout=1):
                if answered is not None and _parse(line).get("id") == answered:
                    raise AnsweredTwice(answered)
        return complaint

    def close(self) -> None:
        """Kill the process and every child it left in its group."""
        process, self._process = self._process, None
        if process is None:
            return
        if self._watch is not None:
            self._watch.end()
        with contextlib.suppress(OSError):
            if os.name == "posix":
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()
        process.wait()
        if self._writer is not None:
            self._writer.join(timeout=1)
        # A stream that a thread still waits for has a lock that close() would wait for: such a thread
        # means that a process outside the group holds the other end, and the stream is left to it.
        if process.stdin is not None and not (self._writer and self._writer.is_alive()):
            with contextlib.suppress(OSError):
                process.stdin.close()

    def _spawn(self) -> None:
        self._errors = deque(maxlen=20)
        self._lines = queue.Queue()
        self._answered = None
        self._process = subprocess.Popen(
            self.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=os.name == "posix",
        )
        self._watch = Watch(self._process, self.memory)
        for target, into in ((_read_answers, self._lines), (_read_errors, self._errors)):
            threading.Thread(target=target, args=(self._process, into), daemon=True).start()

    def _exchange(self, request: Mapping[str, Any], timeout: float) -> dict[str, Any]:
        process = self._process
        if process is None:
            raise Crashed("is not running")
        message = json.dumps(request, allow_nan=False).encode() + b"\n"
        self._send(message)
        line = self._next_line(process, timeout)
        if line is None:
            self._settle()
            reason = self._watch.reason if self._watch is not None else ""
            raise Crashed(reason or _ending(process.poll()))
        return _parse(line)

    def _next_line(self, process: subprocess.Popen[bytes], timeout: float) -> bytes | None:
        """Return the next line; None if the process ended, whoever still holds its output open."""
        deadline = time.monotonic() + timeout
        while True:
            left = deadline - time.monotonic()
            ended = process.poll() is not None
            try:
                return self._lines.get(timeout=max(0.0, min(left, GLANCE_SECONDS)))
            except queue.Empty:
                if self.interrupt.is_set():
                    raise Interrupted from None
                if ended:
                    return None
                if left <= 0:
                    raise TimedOut from None

    def _send(self, message: bytes, last: bool = False) -> None:
        """Write in a thread: a process that does not read would block the write for ever."""
        arguments = (self._process, message, self._writer, last)
        self._writer = threading.Thread(target=_write, args=arguments, daemon=True)
        self._writer.start()

    def _settle(self) -> None:
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=0.2)

    def _context(self) -> str:
        return next((line for line in reversed(self._errors) if line.strip()), "")

    def _and_context(self) -> str:
        return f"; standard error ends: {context}" if (context := self._context()) else ""


def _write(process: Any, message: bytes, before: threading.Thread | None, last: bool) -> None:
    if before is not None:
        before.join()
    with contextlib.suppress(OSError, ValueError):
        process.stdin.write(message)
        process.stdin.flush()
        if last:
            process.stdin.close()


def _read_answers(process: Any, lines: queue.Queue[bytes | None]) -> None:
    with contextlib.suppress(OSError, ValueError), process.stdout:
        while line := process.stdout.readline(LONGEST_LINE):
            lines.put(line)
    lines.put(None)


def _read_errors(process: Any, errors: deque[str]) -> None:
    with contextlib.suppress(OSError, ValueError), process.stderr:
        while line := process.stderr.readline(4096):
            errors.append(line.decode("utf-8", "replace").rstrip())


def _parse(line: bytes) -> dict[str, Any]:
    if not line.endswith(b"\n"):
        what = "longer than the limit" if len(line) >= LONGEST_LINE else "not a whole line"
        raise Crashed(f"the answer is {what}: {line[:60].decode(errors='replace')!r}")
    try:
        answer = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError:
        raise Crashed("the answer is not UTF-8") from None
    except (ValueError, RecursionError):
        raise Crashed(f"the answer is not JSON: {line[:60].decode(errors='replace')!r}") from None
    if not isinstance(answer, dict):
        raise Crashed("the answer is not a JSON object")
    return answer


def _ending(code: int | None) -> str:
    if code is None:
        return "closed its output"
    if code < 0:
        return f"was killed by signal {-code} ({signal.Signals(-code).name})"
    return f"ended with exit code {code}"


def _implementation(answer: Mapping[str, Any]) -> Implementation:
    if answer.get("protocol") != PROTOCOL:
        raise NotStarted(f"speaks protocol {answer.get('protocol')!r}, not {PROTOCOL}")
    about = answer["implementation"]
    return Implementation(
        str(about["name"]),
        str(about.get("version", "")),
        str(about.get("language", "")),
        str(about.get("language_version", "")),
        str(about.get("homepage", "")),
        {str(name): dict(setting) for name, setting in (about.get("dialect") or {}).items()},
        {str(name): _declared(name, what) for name, what in about["operations"].items()},
    )


def _declared(name: str, what: Mapping[str, Any] | None) -> dict[str, Any]:
    declared = dict(what or {})
    dtypes = declared.get("dtypes") or []
    if not isinstance(dtypes, list) or not all(isinstance(dtype, str) for dtype in dtypes):
        raise ValueError(f"{name}: dtypes must be a list of names")
    return declared


def adapter_command(name: str, python: str = sys.executable) -> list[str]:
    """Return the command that serves an adapter found through the entry points of a Python.

    ``-P`` keeps a folder called ``adapters`` in the user's working directory from being taken for ours.
    """
    return [python, "-P", "-m", "adapters", name]
