"""Ask the suite about each mutant, in a process forked from one that has everything ready."""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
from array import array
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from random import Random
from typing import TYPE_CHECKING

from mutation.mutants import FOLDER, Mutant

if TYPE_CHECKING:
    from mutation.judge import Trial

KILLED, SURVIVED, UNREACHED = "killed", "survived", "unreached"

GRACE = 5.0
"""Seconds of processor time for a trial, beside twenty times what it took without a mutant."""
MEMORY = 8 << 30
"""Bytes of address space that a mutant may come to use."""


class Fault(Exception):
    """``refimpl`` fails the suite before anything was changed in it."""


def prepare() -> None:
    """Make ``refimpl`` the one that holds the mutants, on one thread: threads do not survive a fork."""
    sys.path.insert(0, str(FOLDER))
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = "1"


class Suite:
    """All trials, and for each function those that reach it."""

    def __init__(
        self, names: Iterable[str], each: int | None, progress: Callable[[str], None]
    ) -> None:
        """Put the trials to ``refimpl`` as it is; of each kind about as many as said.

        Raises:
            Fault: an answer is wrong.
        """
        from mutation import judge

        self._fault = judge.fault
        self.trials: list[Trial] = []
        self.seconds = array("f")
        self._reached: dict[str, array[int]] = defaultdict(lambda: array("I"))
        for name in names:
            began = time.process_time()
            first = len(self.trials)
            self.trials += judge.trials(name, each)
            expected = time.process_time()
            for index in range(first, len(self.trials)):
                self._try(index)
            progress(
                f"{name}: {len(self.trials) - first} trials, {expected - began:.1f} s to expect,"
                f" {time.process_time() - expected:.1f} s to ask"
            )

    def _try(self, index: int) -> None:
        from mutmut.mutation.trampoline import set_mutant_under_test
        from mutmut.state import state

        set_mutant_under_test("stats")
        state()._stats.clear()
        began = time.process_time()
        wrong = self._fault(self.trials[index])
        self.seconds.append(time.process_time() - began)
        set_mutant_under_test("")
        if wrong is not None:
            raise Fault(f"{self.trials[index]}: {wrong}")
        for function in state()._stats:
            self._reached[function].append(index)

    def reaching(self, mangled: str) -> list[int]:
        """Return the trials that reach a function, such that any kind of question comes soon.

        The kinds - operation, setting, form - take turns, the canonical setting more often since it has the
        most cases; each in random order. Slow trials come last.
        """
        found = list(self._reached.get(mangled, ()))
        Random(mangled).shuffle(found)
        turn: dict[tuple[str, str, str], int] = defaultdict(int)
        order = []
        for index in found:
            trial = self.trials[index]
            kind = (trial.operation.id, trial.operation.key(trial.setting), trial.form)
            turn[kind] += 1
            share = 1 if trial.setting else 8
            order.append((self.seconds[index] > 0.1, turn[kind] // share, index))
        return [index for _, _, index in sorted(order)]

    def first_fault(self, indices: Iterable[int]) -> int | None:
        """Return the first trial that a mutant fails; to be asked in a process that may be lost."""
        for index in indices:
            signal.setitimer(signal.ITIMER_PROF, GRACE + 20 * self.seconds[index])
            if self._fault(self.trials[index]) is not None:
                return index
        return None


def ask(
    suite: Suite, mutants: Sequence[Mutant], most: int | None, jobs: int
) -> Iterator[tuple[Mutant, str]]:
    """Yield what becomes of each mutant: killed, survived, or reached by no trial."""
    running: dict[int, Mutant] = {}
    order: tuple[str, list[int]] = ("", [])
    for mutant in mutants:
        if order[0] != mutant.mangled:
            order = mutant.mangled, suite.reaching(mutant.mangled)[:most]
        if not order[1]:
            yield mutant, UNREACHED
            continue
        if len(running) == jobs:
            yield _next(running)
        running[_start(suite, mutant, order[1])] = mutant
    while running:
        yield _next(running)


def _start(suite: Suite, mutant: Mutant, indices: list[int]) -> int:
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        from mutmut.mutation.trampoline import set_mutant_under_test

        set_mutant_under_test(mutant.id)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        status = 0 if suite.first_fault(indices) is None else 1
    finally:
        # Nothing of the parent's is to be flushed or closed twice.
        os._exit(status)


def _next(running: dict[int, Mutant]) -> tuple[Mutant, str]:
    while True:
        child, status = os.wait()
        if child in running:
            # A crash, too much memory and no end are noticed too: not only a wrong answer.
            return running.pop(child), SURVIVED if status == 0 else KILLED
