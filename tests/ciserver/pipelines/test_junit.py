"""JUnit reports of several writers, and documents that are none."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ciserver.lib.crypto import Secret
from ciserver.lib.masking import Masker
from ciserver.pipelines import junit
from ciserver.pipelines.junit import MAX_CASES, MESSAGE_CAP, Case, Cases, ReportError

PYTEST = b"""<?xml version="1.0"?><testsuites><testsuite name="pytest">
<testcase classname="tests.test_a" name="test_good" time="0.01"/>
<testcase classname="tests.test_a" name="test_bad" time="0.02"><failure message="assert 1 == 2">
tests/test_a.py:3</failure></testcase>
<testcase classname="tests.test_a" name="test_boom">
<error message="KeyError">trace</error></testcase>
<testcase classname="tests.test_a" name="test_later"><skipped message="not now"/></testcase>
</testsuite></testsuites>"""


def parse(data: bytes, mask: Callable[[str], str] = str) -> list[Case]:
    return junit.parse(data, mask).kept


def test_cases_have_outcome_time_and_message() -> None:
    cases = parse(PYTEST)
    assert [case.outcome for case in cases] == ["passed", "failed", "error", "skipped"]
    assert cases[0].seconds == 0.01
    assert cases[1].message == "assert 1 == 2\ntests/test_a.py:3"
    assert cases[3].message == "not now"


def test_a_single_suite_without_a_wrapper_is_read() -> None:
    assert parse(b'<testsuite><testcase name="x" time="1,234.5"/></testsuite>')[0].seconds == 1234.5


@pytest.mark.parametrize("data", [b"", b"hello", b"<a>", b"\x00\xff", b"<a/><b/>"])
def test_what_is_not_xml_is_an_error_in_words(data: bytes) -> None:
    with pytest.raises(ReportError, match="not XML"):
        parse(data)


def _declared(encoding: str, name: str) -> bytes:
    text = f'<?xml version="1.0" encoding="{encoding}"?><a><testcase name="{name}"/></a>'
    return text.encode(encoding)


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (_declared("ISO-8859-1", "Grüße"), "Grüße"),
        (_declared("windows-1252", "5 €"), "5 €"),
        (_declared("Shift_JIS", "テスト"), "テスト"),
        (_declared("GB18030", "测试"), "测试"),
        (_declared("UTF-16", "Grüße"), "Grüße"),
        (b"\xef\xbb\xbf<a><testcase name='bom'/></a>", "bom"),
        (b"<a><testcase name='\x1b[31mred\xff'/></a>", "\ufffd[31mred\ufffd"),
        (b"<a><testcase name='a&#27;b&#x0;c&#9;d'/></a>", "a\ufffdb\ufffdc\td"),
        (_declared("ISO-8859-1", "\x1bü"), "?ü"),
        (b"<!DOCTYPE a SYSTEM 'junit.dtd'><a><testcase name='x'/></a>", "x"),
    ],
)
def test_encodings_and_what_no_xml_may_hold_are_read(data: bytes, name: str) -> None:
    assert [case.name for case in parse(data)] == [name]


@pytest.mark.parametrize("encoding", ["nonsense", "punycode", "idna", "zip", "rot13", "utf-7"])
def test_an_encoding_that_is_not_known_is_said(encoding: str) -> None:
    with pytest.raises(ReportError, match="the encoding that it says is not known"):
        parse(f'<?xml version="1.0" encoding="{encoding}"?><a/>'.encode())


def test_a_document_type_is_refused_because_entities_can_grow_without_bound() -> None:
    bomb = b'<!DOCTYPE a [<!ENTITY x "ha"><!ENTITY y "&x;&x;">]><a>&y;</a>'
    with pytest.raises(ReportError, match="document type"):
        parse(bomb)


def test_words_of_a_case_are_those_of_its_own_elements() -> None:
    report = (
        b"<a>x<testcase name='n'>x<properties><failure message='no'>x</failure></properties>"
        b"<system-out>x</system-out><error/><failure message='m'> one<b>x</b>x</failure>"
        b"<testcase name='inner'/><failure message='second'/></testcase></a>"
    )
    (case,) = parse(report)
    assert (case.name, case.outcome, case.message) == ("n", "failed", "m\none")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"<a>" * 5_000_000, "more than 100 elements"),
    ],
    ids=["deep"],
)
def test_a_report_of_many_megabytes_is_refused_early(data: bytes, words: str) -> None:
    before = time.process_time()
    with pytest.raises(ReportError, match=words):
        parse(data)
    assert time.process_time() - before < 2  # with a tree it took six, and a gigabyte


def _report(count: int, *failed: int) -> bytes:
    told = dict.fromkeys(failed, "<failure/>")
    cases = (f"<testcase name='{n}'>{told.get(n, '')}</testcase>" for n in range(count))
    return f"<a>{''.join(cases)}</a>".encode()


def test_of_many_cases_the_first_are_kept_and_failed_ones_before_others() -> None:
    cases = junit.parse(_report(MAX_CASES + 3, 7, MAX_CASES + 1, MAX_CASES + 2))
    names = [int(case.name) for case in cases.kept]
    assert names == [*range(MAX_CASES - 2), MAX_CASES + 1, MAX_CASES + 2]
    assert (cases.count, cases.failed, cases.left_out) == (MAX_CASES + 3, 3, 3)
    assert cases.first_failed and cases.first_failed.name == "7"


@pytest.mark.parametrize("most", [0, 1, 3, 5, 8, 20])
def test_reports_have_a_number_of_cases_together(most: int) -> None:
    together = Cases(most)
    for count, failed in ((4, ()), (3, (1, 2)), (6, (0, 5))):
        together.extend(junit.parse(_report(count, *failed), most=most))
    assert (together.count, together.failed, together.left_out) == (13, 4, max(0, 13 - most))
    outcomes = [case.outcome for case in together.kept]
    assert len(outcomes) == min(most, 13)
    assert outcomes.count("failed") == min(most, 4)
    if most == 8:
        names = [(case.name, case.outcome) for case in together.kept]
        assert names[:4] == [(str(n), "passed") for n in range(4)]
        assert [name for name, outcome in names if outcome == "failed"] == ["1", "2", "0", "5"]


def test_a_report_of_more_cases_than_anybody_has_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(junit, "MOST_READ", 5)
    assert len(parse(_report(5))) == 5
    with pytest.raises(ReportError, match="more than 5 test cases in one report"):
        parse(_report(6))


def test_cases_that_are_not_kept_cost_next_to_nothing() -> None:
    before = time.process_time()
    cases = junit.parse(b"<a>" + b"<testcase/>" * 500_000 + b"</a>")
    assert (len(cases.kept), cases.left_out) == (MAX_CASES, 500_000 - MAX_CASES)
    assert time.process_time() - before < 5


@given(st.binary(max_size=300))
def test_any_bytes_are_cases_or_an_error(data: bytes) -> None:
    with contextlib.suppress(ReportError):
        parse(data)


def test_secrets_are_taken_out_before_the_words_are_cut() -> None:
    secret = "correct-horse-battery"

    def over(most: int) -> str:
        return f"{'x' * (most - 8)}{secret}"

    report = (
        f'<testsuite><testcase classname="{over(300)}" name="{over(500)}">'
        f'<failure message="{over(MESSAGE_CAP)}"/></testcase></testsuite>'
    )
    (case,) = parse(report.encode(), Masker([Secret(secret)]).mask_text)
    for words, most in ((case.suite, 300), (case.name, 500), (case.message, MESSAGE_CAP)):
        assert words == f"{'x' * (most - 8)}***"
