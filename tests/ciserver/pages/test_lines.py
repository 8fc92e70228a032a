"""One job's log as a page of its own: any line at once, search, the first error."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest

from ciserver.pipelines import logsearch
from ciserver.pipelines.logs import LogReader, LogWriter
from ciserver.pipelines.logsearch import first_error, position_of, search
from ciserver.pipelines.models import Job
from tests.conftest import api_as

URL = "/projects/hello/pipelines/5/jobs/1/lines"


def write(path: Path, text: str) -> Path:
    with LogWriter(path) as log:
        log.write(1, "out", text.encode())
    return path


@pytest.fixture
def job(hello: Any) -> Job:
    found = Job.objects.get(pipeline__project=hello, pipeline__number=5, position=1)
    write(found.log_path, "".join(f"line {number}.\n" for number in range(1, 5001)))
    return found


def test_every_line_is_found_by_its_number(tmp_path: Path) -> None:
    path = write(tmp_path / "1.log", "".join(f"{'x' * (n % 700)} {n}\n" for n in range(1, 9001)))
    for number in (1, 2, 2999, 5000, 8999, 9000):
        lines, _ = LogReader(path).read(position_of(path, number))
        assert lines[0].number == number
        assert lines[0].text.endswith(f" {number}")
    assert position_of(path, 9001).offset == path.stat().st_size
    assert position_of(path, 99_999).line == 9000
    assert position_of(tmp_path / "none.log", 5).line == 0


def test_search_sees_text_only_whatever_its_case_and_colours(tmp_path: Path) -> None:
    path = write(tmp_path / "1.log", "One\n\x1b[31mTW\x1b[0mo\nthree two\nout\nzwölf\n")
    assert [line.number for line in search(path, "two")] == [2, 3]
    assert [line.number for line in search(path, "OUT")] == [4]
    assert [line.number for line in search(path, "zwölf")] == [5]
    assert [line.number for line in search(path, "two", after=2)] == [3]
    assert search(path, "0 1 out") == []
    assert search(tmp_path / "none.log", "x") == []


@pytest.mark.parametrize("piece", ["\x1b]", "\x1b[", "\x1bP", "\x1b", "error:", "aerror", "0 "])
def test_a_hostile_line_holds_up_nobody(tmp_path: Path, piece: str) -> None:
    """A web process answers nobody else while a pattern is looked for."""
    path = write(tmp_path / "1.log", f"{piece * (60_000 // len(piece))}\nneedle\n")
    before = time.process_time()
    assert [line.number for line in search(path, "needle")] == [2]
    first_error(path)
    assert time.process_time() - before < 0.5  # of quadratic time it took eight seconds


def test_search_counts_lines_over_the_whole_log(tmp_path: Path) -> None:
    text = "".join(f"{'y' * 200} {'needle' if n % 5000 == 0 else n}\n" for n in range(1, 20_001))
    path = write(tmp_path / "1.log", text)
    assert [line.number for line in search(path, "needle")] == [5000, 10_000, 15_000, 20_000]
    assert len(search(path, "yyy", limit=7)) == 7


@pytest.mark.parametrize(
    ("line", "is_error"),
    [
        ("gcc: error: no input files", True),
        ("ERROR in ./src/index.js", True),
        ("Traceback (most recent call last):", True),
        ("ValueError: bad", True),
        ("2 failed, 3 passed", True),
        ("FAILED tests/test_a.py", True),
        ("fatal: not a repository", True),
        ("0 errors, 0 failed", False),
        ("no errors", False),
        ("errors: 0", False),
        ("compiling src/error.c", False),
        ("installing failure-injector", False),
        ("all is well", False),
    ],
)
def test_what_speaks_of_an_error(tmp_path: Path, line: str, is_error: bool) -> None:
    path = write(tmp_path / "1.log", f"fine\n{line}\n")
    assert first_error(path) == (2 if is_error else None)


def test_a_log_of_a_million_lines_opens_anywhere_at_once(tmp_path: Path) -> None:
    path = tmp_path / "1.log"
    path.write_bytes(b"".join(b"%d 1 out line %d.\n" % (n, n) for n in range(1, 1_000_001)))
    before = time.monotonic()
    lines, _ = LogReader(path).read(position_of(path, 765_432))
    assert lines[0].text == "line 765432."
    assert [line.number for line in search(path, "line 987654.")] == [987_654]
    assert time.monotonic() - before < 5  # alone it is 0.3 s


HOSTILE = {
    "empty lines": b"0 1 out \n",
    "hits everywhere": b"0 1 out x\n",
    "no errors": b"0 1 out 0 errors\n",
    "long lines": b"0 1 out %s\n" % (b"x" * 65_000),
    "all but the end": b"0 1 out %s\n" % (b"a" * 65_000),
    "halves of codes": b"0 1 out %s\n" % (b"\x1b[3" * 16_000),
    "one word": b"0 1 err %s\n" % (b"aerror" * 10_000),
}
WORDS = [
    "out",
    "1",
    "x",
    " ",
    "\0",
    "\x1b[3",
    ".*(a+)+$",
    "a" * 199 + "b",
    "error",
    "\ufffd",
    "a\nb",
]


@pytest.mark.parametrize("record", HOSTILE.values(), ids=HOSTILE)
def test_no_log_and_no_words_keep_a_search_busy(
    job: Job, alice: Any, sign_in: Any, record: bytes
) -> None:
    """Each took up to a minute of the web process for a log of 64 MiB, or made a page of 100."""
    job.log_path.write_bytes(record * ((4 << 20) // len(record)))
    client, api = sign_in(alice), api_as(alice)
    for words in WORDS:
        for after in ("0", "999999999"):
            before = time.process_time()
            page = client.get(URL, {"q": words, "after": after})
            answer = api.get(f"/api/v1/jobs/{job.pk}/search/", {"q": words, "after": after})
            assert time.process_time() - before < 2, words  # alone it is 0.2 s
            assert page.status_code == 200
            assert len(page.content) < 4 << 20
            assert answer.status_code == (200 if words.strip() else 400)
    before = time.process_time()
    first_error(job.log_path)
    assert time.process_time() - before < 2
    job.log_path.unlink()


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("out", [3, 5]),
        ("1", [2, 3]),
        ("t b", [3]),
        ("1 out", [3]),
        (" 1 ", []),
        ("err", [4]),
        ("0 1", []),
        ("sys", []),
        ("ou", [3, 5]),
        ("\n0", []),
        ("out\n", []),
        (" b", [3]),
    ],
)
def test_what_stands_before_a_line_is_not_searched(
    tmp_path: Path, words: str, found: list[int]
) -> None:
    path = write(tmp_path / "1.log", "a\na1\n1 out b\nerr\nout\n")
    assert [line.number for line in search(path, words)] == found
    assert [line.number for line in search(path, words, after=3)] == [n for n in found if n > 3]


def test_a_page_of_long_lines_ends_early_and_goes_on_behind(
    job: Job, alice: Any, sign_in: Any
) -> None:
    job.log_path.write_bytes(b"0 1 out %s\n" % (b"x" * 65_000) * 30)
    client = sign_in(alice)
    seen, after = 0, "0"
    while True:
        html = client.get(URL, {"q": "x", "after": after}).content.decode()
        assert html.count("<mark>") <= 200 * html.count('<span class="l">')
        seen += html.count('<span class="l">')
        found = re.search("More lines behind ([0-9]+)", html)
        if not found:
            break
        after = found[1]
    assert seen == 30


def test_more_searches_than_are_done_at_once_wait_and_are_refused_at_last(
    job: Job, alice: Any, sign_in: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logsearch, "_PATIENCE", 0.01)
    with logsearch._turn(), logsearch._turn():
        page = sign_in(alice).get(URL, {"q": "line"})
        answer = api_as(alice).get(f"/api/v1/jobs/{job.pk}/search/?q=line")
    assert (page.status_code, answer.status_code) == (429, 429)
    assert answer.json()["code"] == "logs.busy"
    assert b"Too many logs are searched at once." in page.content
    assert len(api_as(alice).get(f"/api/v1/jobs/{job.pk}/search/?q=line").json()) == 100


def test_the_page_opens_on_a_line(job: Job, alice: Any, sign_in: Any) -> None:
    html = sign_in(alice).get(f"{URL}?line=2500").content.decode()
    assert 'id="j1-L2500"' in html
    assert 'id="j1-L2480"' in html
    assert 'id="j1-L2479"' not in html
    assert html.count('<span class="l"') == 1000
    assert f"{URL}?line=3500" in html
    assert f"{URL}?line=1500" in html


def test_pages_forward_and_back_leave_no_line_out(job: Job, alice: Any, sign_in: Any) -> None:
    client = sign_in(alice)
    html = client.get(f"{URL}?line=3500").content.decode()
    assert 'id="j1-L3480"' in html
    html = client.get(f"{URL}?line=1500").content.decode()
    assert 'id="j1-L2479"' in html


def test_the_page_searches(job: Job, alice: Any, sign_in: Any) -> None:
    html = sign_in(alice).get(URL, {"q": "LINE 49"}).content.decode()
    assert f'href="{URL}?line=49#j1-L49">49</a><mark>line 49</mark>.' in html
    assert "More lines behind" in html
    html = sign_in(alice).get(URL, {"q": "<script>"}).content.decode()
    assert "No line holds “&lt;script&gt;”." in html


def test_the_first_error_is_one_click_away(job: Job, alice: Any, sign_in: Any) -> None:
    client = sign_in(alice)
    assert (
        "No line of this log speaks of an error." in client.get(f"{URL}?go=error").content.decode()
    )
    write(job.log_path, "one\nerror: two\n")
    assert client.get(f"{URL}?go=error")["Location"] == f"{URL}?line=2#j1-L2"


@pytest.mark.parametrize("query", ["line=x", "line=-1", "line=9999999999", "line=²", "q=a&after=x"])
def test_a_line_that_is_no_number_is_refused(
    job: Job, alice: Any, sign_in: Any, query: str
) -> None:
    assert sign_in(alice).get(f"{URL}?{query}").status_code == 400


def test_what_a_log_holds_is_text(job: Job, alice: Any, sign_in: Any) -> None:
    write(job.log_path, "<script>alert(1)</script> needle\n")
    for query in ("?q=needle", "?line=1", ""):
        assert "<script>alert" not in sign_in(alice).get(f"{URL}{query}").content.decode()


def test_a_stranger_sees_no_log(job: Job, alice: Any, charlie: Any, sign_in: Any) -> None:
    assert sign_in(charlie).get(URL).status_code == 404
    for verb in ("lines", "search"):
        assert api_as(charlie).get(f"/api/v1/jobs/{job.pk}/{verb}/?q=x").status_code == 404


def test_the_api_gives_lines_with_number_and_time(job: Job, alice: Any) -> None:
    api = api_as(alice)
    rows = api.get(f"/api/v1/jobs/{job.pk}/lines/?start=4000&count=2").json()
    assert [(row["number"], row["text"]) for row in rows] == [
        (4000, "line 4000."),
        (4001, "line 4001."),
    ]
    assert rows[0]["time"] >= job.started_at.isoformat()[:19]
    rows = api.get(f"/api/v1/jobs/{job.pk}/search/?q=line+777.").json()
    assert [row["number"] for row in rows] == [777]
    for query in ("search/", "search/?q=+", "search/?q=a&after=x", "lines/?start=-1"):
        assert api.get(f"/api/v1/jobs/{job.pk}/{query}").status_code == 400
