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
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

PROTOCOL = 1
LONGEST_LINE = 256 * 2**20
NOT_INSTALLED = 3
"""Exit code with which an adapter says, before its first answer, that its framework is not there."""


class NotStarted(Exception):
    """The implementation could not be started; the message says why and what to do."""


class Crashed(Exception):
    """The process ended, or answered something that is not the protocol."""


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
        self, command: Sequence[str], timeout: float, start_timeout: float = 120.0
    ) -> None:
        """Remember how to start; nothing runs until :meth:`start`."""
        self.command = list(command)
        self.timeout = timeout
        self.start_timeout = start_timeout
        self._process: subprocess.Popen[bytes] | None = None
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
            reason = self._context() if code == NOT_INSTALLED else f"{error}{self._and_context()}"
            self.close()
            raise NotStarted(reason) from None
        except TimedOut:
            self.close()
            raise NotStarted(f"no answer to start within {self.start_timeout:g} s") from None
        try:
            return _implementation(answer)
        except (KeyError, TypeError, AttributeError) as error:
            self.close()
            raise NotStarted(f"the answer to start is malformed: {error!r}") from None

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Return the answer to one ``run`` request; starts the process again if it is gone.

        Raises:
            Crashed, TimedOut: the process is stopped; the message has the end of its standard error.
        """
        if self._process is None:
            try:
                self.start()
            except NotStarted as error:
                raise Crashed(f"could not be started again: {error}") from None
        try:
            answer = self._exchange(request, self.timeout)
            if answer.get("id") != request["id"]:
                raise Crashed(f"answered for {answer.get('id')!r}")
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

    def stop(self) -> None:
        """Ask the process to stop; kill it if it does not."""
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                self._process.stdin.write(b'{"cmd":"stop"}\n')
                self._process.stdin.close()
                self._process.wait(timeout=5)
        self.close()

    def close(self) -> None:
        """Kill the process and every child it left in its group."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(OSError):
            if os.name == "posix":
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):
                if stream is not None:
                    stream.close()

    def _spawn(self) -> None:
        self._errors.clear()
        self._lines = queue.Queue()
        self._process = subprocess.Popen(
            self.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=os.name == "posix",
        )
        for target in (self._read_answers, self._read_errors):
            threading.Thread(target=target, args=(self._process, self._lines), daemon=True).start()

    def _read_answers(self, process: Any, lines: queue.Queue[bytes | None]) -> None:
        with contextlib.suppress(OSError, ValueError):
            while line := process.stdout.readline(LONGEST_LINE):
                lines.put(line)
        lines.put(None)

    def _read_errors(self, process: Any, _: Any) -> None:
        with contextlib.suppress(OSError, ValueError), process.stderr:
            while line := process.stderr.readline(4096):
                self._errors.append(line.decode("utf-8", "replace").rstrip())

    def _exchange(self, request: Mapping[str, Any], timeout: float) -> dict[str, Any]:
        process = self._process
        if process is None:
            raise Crashed("is not running")
        message = json.dumps(request, allow_nan=False).encode() + b"\n"
        # A process that does not read would block the write for ever, so it has a thread of its own.
        writer = threading.Thread(target=self._write, args=(process, message), daemon=True)
        writer.start()
        try:
            line = self._lines.get(timeout=timeout)
        except queue.Empty:
            raise TimedOut from None
        if line is None:
            self._settle()
            raise Crashed(_ending(process.poll()))
        return _parse(line)

    @staticmethod
    def _write(process: Any, message: bytes) -> None:
        with contextlib.suppress(OSError, ValueError):
            process.stdin.write(message)
            process.stdin.flush()

    def _settle(self) -> None:
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=0.2)

    def _context(self) -> str:
        return next((line for line in reversed(self._errors) if line.strip()), "")

    def _and_context(self) -> str:
        return f"; standard error ends: {context}" if (context := self._context()) else ""


def _parse(line: bytes) -> dict[str, Any]:
    if not line.endswith(b"\n"):
        raise Crashed("the answer is not a whole line")
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
        {str(name): dict(what or {}) for name, what in about["operations"].items()},
    )


def adapter_command(name: str) -> list[str]:
    """Return the command that serves an adapter found through the entry points."""
    return [sys.executable, "-m", "adapters", name]
