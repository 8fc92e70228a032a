"""JUnit XML reports, as pytest, Maven, jest and unittest-xml-reporting write them.

There is no standard; this reads what they share: ``testcase`` elements with ``classname``,
``name`` and ``time``, holding ``failure``, ``error`` or ``skipped``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from xml.etree import ElementTree
from xml.parsers import expat

MAX_CASES = 20_000
MESSAGE_CAP = 16 * 1024


class ReportError(Exception):
    """A report cannot be read; says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    suite: str
    name: str
    outcome: str  # passed, failed, error, skipped
    seconds: float
    message: str


def parse(data: bytes, mask: Callable[[str], str] = str) -> list[Case]:
    """The cases of one report. Raises ReportError for what is no report.

    ``mask`` takes secrets out of its words before these are cut: half a secret would not be known
    as one.

    A document type declaration is refused: entities in one can grow without bound.
    """
    try:
        cases = list(_cases(_parse_without_dtd(data), mask))
    except ElementTree.ParseError as error:
        raise ReportError(f"not XML: {error}") from None
    if len(cases) > MAX_CASES:
        raise ReportError(f"more than {MAX_CASES} test cases")
    return cases


def _parse_without_dtd(data: bytes) -> ElementTree.Element:
    builder = ElementTree.TreeBuilder()
    parser = expat.ParserCreate()
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = _refuse_doctype
    try:
        parser.Parse(data, True)
        return builder.close()
    except expat.ExpatError as error:
        raise ReportError(f"not XML: {error}") from None
    except AssertionError:
        raise ReportError("not XML: no element") from None


def _refuse_doctype(*_: object) -> None:
    raise ReportError("a document type declaration is not allowed")


def _cases(root: ElementTree.Element, mask: Callable[[str], str]) -> Iterator[Case]:
    for element in root.iter("testcase"):
        outcome, message = _outcome(element)
        yield Case(
            suite=mask(element.get("classname", ""))[:300],
            name=mask(element.get("name", ""))[:500],
            outcome=outcome,
            seconds=_seconds(element.get("time", "0")),
            message=mask(message)[:MESSAGE_CAP],
        )


def _outcome(element: ElementTree.Element) -> tuple[str, str]:
    for tag, outcome in (("failure", "failed"), ("error", "error"), ("skipped", "skipped")):
        found = element.find(tag)
        if found is not None:
            message = found.get("message", "")
            text = (found.text or "").strip()
            return outcome, f"{message}\n{text}".strip() if text != message else message
    return "passed", ""


def _seconds(text: str) -> float:
    try:
        value = float(text.replace(",", ""))
    except ValueError:
        return 0.0
    return value if 0 <= value < float("inf") else 0.0
