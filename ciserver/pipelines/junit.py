"""JUnit XML reports, as pytest, Maven, jest and unittest-xml-reporting write them.

There is no standard; this reads what they share: ``testcase`` elements with ``classname``,
``name`` and ``time``, holding ``failure``, ``error`` or ``skipped``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ciserver.pipelines.xml_reports import XmlError, read_xml

MAX_CASES = 20_000
MOST_OF_PIPELINE = 50_000
MESSAGE_CAP = 16 * 1024
OUTCOMES = {"failure": "failed", "error": "error", "skipped": "skipped"}  # the worst first


class ReportError(Exception):
    """A report cannot be read; says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    suite: str
    name: str
    outcome: str  # passed, failed, error, skipped
    seconds: float
    message: str


def parse(data: bytes, mask: Callable[[str], str] = str, *, most: int = MAX_CASES) -> list[Case]:
    """The cases of one report. Raises ReportError for what is no report, or has more than ``most``.

    ``mask`` takes secrets out of its words before these are cut: half a secret would not be known
    as one.
    """
    try:
        return read_xml(data, lambda: _Reader(mask, most)).cases
    except XmlError as error:
        raise ReportError(str(error)) from None


class _Reader:
    """Keeps what a case needs and no tree, which of a hostile report would take a gigabyte."""

    def __init__(self, mask: Callable[[str], str], most: int) -> None:
        self.cases: list[Case] = []
        self._mask = mask
        self._most = most
        self._depth = 0
        self._case: dict[str, str] | None = None  # attributes of the one that is open
        self._case_depth = 0
        self._found: dict[str, tuple[str, list[str]]] = {}  # message and text by its element
        self._open: list[str] | None = None

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        if tag == "testcase" and self._case is None:
            self._case, self._case_depth, self._found = attributes, self._depth, {}
        elif self._case is not None and self._depth == self._case_depth + 1 and tag in OUTCOMES:
            self._open = []
            self._found.setdefault(tag, (attributes.get("message", ""), self._open))
        else:
            self._open = None  # text behind an element within a message is none of it

    def text(self, data: str) -> None:
        if self._open is not None:
            self._open.append(data)

    def end(self, tag: str) -> None:
        self._open = None
        if self._case is not None and self._depth == self._case_depth:
            self._keep(self._case)
            self._case = None
        self._depth -= 1

    def _keep(self, attributes: dict[str, str]) -> None:
        if len(self.cases) >= self._most:
            raise ReportError(
                f"more than {MAX_CASES} test cases of one job or {MOST_OF_PIPELINE} of a pipeline"
            )
        tag = next((tag for tag in OUTCOMES if tag in self._found), "")
        message, text = self._found.get(tag, ("", []))
        words = "".join(text).strip()
        self.cases.append(
            Case(
                suite=self._mask(attributes.get("classname", ""))[:300],
                name=self._mask(attributes.get("name", ""))[:500],
                outcome=OUTCOMES.get(tag, "passed"),
                seconds=_seconds(attributes.get("time", "0")),
                message=self._mask(f"{message}\n{words}".strip() if words != message else message)[
                    :MESSAGE_CAP
                ],
            )
        )


def _seconds(text: str) -> float:
    try:
        value = float(text.replace(",", ""))
    except ValueError:
        return 0.0
    return value if 0 <= value < float("inf") else 0.0
