"""Reports as JUnit XML: one suite a participant, one test a case."""

from __future__ import annotations

import re
from collections.abc import Iterable
from xml.etree import ElementTree as xml

from conformance import report
from conformance.judge import Verdict
from conformance.runner import DIFFERENT, Run

FAILED = frozenset({"failed", "unexpected_pass"})
SKIPPED = frozenset({"unsupported", "expected_failure"})
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(runs: Iterable[Run]) -> str:
    """Return the runs as JUnit XML.

    A wrong answer is a ``failure``; a crash, a time limit or an exception is an ``error``; what is
    unsupported or fails as expected is ``skipped``, with the reason.
    """
    root = xml.Element("testsuites", name="secateurs")
    for run in runs:
        suite = xml.SubElement(root, "testsuite", name=_legal(report.title(run)))
        if run.not_started is not None:
            test = xml.SubElement(
                suite, "testcase", classname=_legal(run.participant), name="start"
            )
            kind = "skipped" if run.not_installed else "error"
            xml.SubElement(test, kind, message=_legal(run.not_started))
        for verdict in run.verdicts:
            _add(suite, run.participant, verdict)
        counts = {
            "tests": len(suite),
            "failures": sum(v.status in FAILED for v in run.verdicts),
            "errors": len(suite.findall("testcase/error")),
            "skipped": len(suite.findall("testcase/skipped")),
        }
        suite.attrib |= {name: str(count) for name, count in counts.items()}
        suite.set("time", f"{run.seconds:.3f}")
    xml.indent(root, " ")
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + xml.tostring(root, "unicode") + "\n"


def _add(suite: xml.Element, participant: str, verdict: Verdict) -> None:
    test = xml.SubElement(
        suite,
        "testcase",
        classname=_legal(f"{participant}.{verdict.case.operation}"),
        name=verdict.case.id,
        time=f"{verdict.seconds:.6f}",
    )
    if verdict.status in SKIPPED:
        expected = verdict.status == "expected_failure"
        reason = f"expected failure: {verdict.reason}" if expected else verdict.message
        xml.SubElement(test, "skipped", message=_legal(reason))
    elif verdict.status in DIFFERENT:
        kind = "failure" if verdict.status in FAILED else "error"
        found = xml.SubElement(test, kind, type=verdict.status, message=_legal(verdict.message))
        if verdict.departs is not None:
            found.text = _legal(f"from the canonical answer: {verdict.departs}")


def _legal(text: str) -> str:
    """Replace the characters that XML 1.0 cannot hold, escaped or not."""
    return _FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", text)
