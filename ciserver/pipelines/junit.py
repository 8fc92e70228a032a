"""JUnit XML reports, as pytest, Maven, jest and unittest-xml-reporting write them.

There is no standard; this reads what they share: ``testcase`` elements with ``classname``,
``name`` and ``time``, holding ``failure``, ``error`` or ``skipped``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ciserver.pipelines.xml_reports import XmlError, read_xml

MAX_CASES = 20_000  # of a job: the first, failed ones before others
MOST_READ = 1_000_000  # of one report
MOST_OF_PIPELINE = 50_000
MESSAGE_CAP = 16 * 1024
BAD = frozenset({"failed", "error"})
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


@dataclass(slots=True)
class Cases:
    """Of any number of cases the first ``most``, failed ones before others; all are counted."""

    most: int = MAX_CASES
    count: int = 0
    failed: int = 0
    _bad: list[tuple[int, Case]] = field(default_factory=list)  # with their places
    _others: list[tuple[int, Case]] = field(default_factory=list)

    @property
    def kept(self) -> list[Case]:
        """In the order in which they came."""
        others = self._others[: self.most - len(self._bad)]
        return [case for _, case in sorted([*self._bad, *others], key=lambda it: it[0])]

    @property
    def left_out(self) -> int:
        return self.count - min(self.count, self.most)

    @property
    def first_failed(self) -> Case | None:
        return self._bad[0][1] if self._bad else None

    def add(self, outcome: str, make: Callable[[], Case]) -> None:
        """``make`` is asked only for one that is kept, as far as is known by now."""
        self.count += 1
        self.failed += outcome in BAD
        room = self.most - len(self._bad)
        if outcome in BAD and room > 0:
            self._bad.append((self.count, make()))
        elif outcome not in BAD and room > len(self._others):
            self._others.append((self.count, make()))

    def extend(self, others: Cases) -> None:
        """By what another report told."""
        for place, case in [*others._bad, *others._others]:
            kept = self._bad if case.outcome in BAD else self._others
            if len(self._bad) + (0 if case.outcome in BAD else len(self._others)) < self.most:
                kept.append((self.count + place, case))
        self.count += others.count
        self.failed += others.failed


def parse(data: bytes, mask: Callable[[str], str] = str, *, most: int = MAX_CASES) -> Cases:
    """The cases of one report, ``most`` of them kept. Raises ReportError for what is no report.

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
        self.cases = Cases(most)
        self._mask = mask
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
        if self.cases.count >= MOST_READ:
            raise ReportError(f"more than {MOST_READ} test cases in one report")
        tag = next((tag for tag in OUTCOMES if tag in self._found), "")
        outcome = OUTCOMES.get(tag, "passed")
        self.cases.add(outcome, lambda: self._made(attributes, outcome, tag))

    def _made(self, attributes: dict[str, str], outcome: str, tag: str) -> Case:
        message, text = self._found.get(tag, ("", []))
        words = "".join(text).strip()
        return Case(
            suite=self._mask(attributes.get("classname", ""))[:300],
            name=self._mask(attributes.get("name", ""))[:500],
            outcome=outcome,
            seconds=_seconds(attributes.get("time", "0")),
            message=self._mask(f"{message}\n{words}".strip() if words != message else message)[
                :MESSAGE_CAP
            ],
        )


def _seconds(text: str) -> float:
    try:
        value = float(text.replace(",", ""))
    except ValueError:
        return 0.0
    return value if 0 <= value < float("inf") else 0.0
