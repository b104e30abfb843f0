"""The pytest plugin: ``pytest --secateurs ADAPTER`` adds a test for each operation that the adapter has.

Everything but this file's few lines is imported when the option is used.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from conformance.runner import Run


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("secateurs", "conformance of clipping, pruning and training steps")
    group.addoption(
        "--secateurs",
        action="append",
        default=[],
        metavar="ADAPTER",
        help="check an installed adapter: one test for each operation. Repeatable.",
    )
    group.addoption(
        "--secateurs-operation",
        action="append",
        default=[],
        metavar="PATTERN",
        help="only operations that match, such as 'clip.*'. Repeatable.",
    )


def pytest_collection_modifyitems(session: pytest.Session, items: list[pytest.Item]) -> None:
    """Add the tests, after those that were found in files."""
    adapters = session.config.getoption("--secateurs")
    if adapters:
        items += _tests(session, adapters, session.config.getoption("--secateurs-operation"))


def _tests(session: pytest.Session, adapters: list[str], patterns: list[str]) -> Iterator[Any]:
    from conformance import participants
    from conformance.operations import matching, names

    known = participants.adapters()
    operations = [name for pattern in patterns or ["*"] for name in matching(pattern)]
    if not operations:
        raise pytest.UsageError(f"--secateurs-operation: there are only {', '.join(names())}")
    for adapter in dict.fromkeys(adapters):
        if adapter not in known:
            raise pytest.UsageError(f"--secateurs {adapter}: there are only {', '.join(known)}")
        for name in dict.fromkeys(operations):
            title = f"{adapter}/{name}"
            yield OperationTest.from_parent(
                session, name=title, nodeid=f"secateurs::{title}", adapter=adapter, operation=name
            )


class OperationTest(pytest.Item):
    """All cases of one operation, put to one adapter in a process of its own."""

    def __init__(self, *, adapter: str, operation: str, **options: Any) -> None:
        super().__init__(**options)
        self.adapter, self.operation = adapter, operation

    def runtest(self) -> None:
        """Fail with the diagnosis, and be skipped where the adapter has no such operation."""
        from conformance import expected, participants, runner

        cases = runner.select([self.operation])
        command = participants.command(self.adapter, participants.adapters()[self.adapter])
        run = runner.run(self.adapter, command, cases)
        if run.not_started is not None:
            pytest.fail(f"{self.adapter} could not be started: {run.not_started}", pytrace=False)
        expected.apply(run, expected.read(self.adapter))
        if all(verdict.status == "unsupported" for verdict in run.verdicts):
            pytest.skip(run.verdicts[0].message or "unsupported")
        if not run.as_expected:
            runner.explain(run)
            pytest.fail(_message(run), pytrace=False)

    def reportinfo(self) -> tuple[str, None, str]:
        """Say what it is, in the place of a file and a line."""
        return "secateurs", None, self.name


def _message(run: Run) -> str:
    from conformance.runner import DIFFERENT

    bad = [verdict for verdict in run.verdicts if verdict.status in DIFFERENT]
    lines = [f"{len(bad)} of {len(run.verdicts)} cases are not as expected"]
    lines += [f"  {v.case.full_id} {v.status}: {v.message}" for v in bad[:5]]
    if len(bad) > 5:
        lines.append(f"  … and {len(bad) - 5} more")
    return "\n".join(lines + [str(found) for found in run.diagnoses.values()])
