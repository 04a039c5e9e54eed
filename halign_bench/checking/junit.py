"""Outcomes as JUnit XML: a suite a method, a test case a score."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime, timezone
from xml.etree import ElementTree as ET

from halign_bench.checking.texts import sentence
from halign_bench.checking.verdicts import REGRESSION, UNKNOWN, Outcome

# What XML 1.0 cannot hold at all, escaped or not.
FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(outcomes: Sequence[Outcome], allow_cannot_tell: bool = False) -> str:
    """A regression is a failure; what cannot be told an error, or skipped where that is allowed to pass."""
    unknown = "skipped" if allow_cannot_tell else "error"
    root = ET.Element("testsuites")
    now = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S")
    for number, method in enumerate(dict.fromkeys(outcome.method for outcome in outcomes)):
        mine = [outcome for outcome in outcomes if outcome.method == method]
        count = {verdict: str(sum(one.verdict == verdict for one in mine)) for verdict in (REGRESSION, UNKNOWN)}
        suite = ET.SubElement(root, "testsuite", {
            "id": str(number), "package": "halign-bench", "name": _text(method), "timestamp": now,
            "hostname": "localhost", "tests": str(len(mine)), "failures": count[REGRESSION],
            "errors": count[UNKNOWN] if unknown == "error" else "0",
            "skipped": count[UNKNOWN] if unknown == "skipped" else "0", "time": "0",
        })  # fmt: skip
        ET.SubElement(suite, "properties")
        for one in mine:
            name = _text(one.metric or "training")
            case = ET.SubElement(suite, "testcase", {"name": name, "classname": _text(method), "time": "0"})
            said = _text(sentence(one))
            if one.verdict == REGRESSION:
                ET.SubElement(case, "failure", {"message": said, "type": REGRESSION}).text = said
            elif one.verdict == UNKNOWN and unknown == "error":
                ET.SubElement(case, "error", {"message": said, "type": UNKNOWN}).text = said
            elif one.verdict == UNKNOWN:
                ET.SubElement(case, "skipped", {"message": said})
        ET.SubElement(suite, "system-out").text = "\n".join(f"{one.verdict}: {_text(sentence(one))}" for one in mine)
        ET.SubElement(suite, "system-err")
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _text(text: str) -> str:
    return FORBIDDEN.sub("\ufffd", text)


__all__ = ["junit"]
