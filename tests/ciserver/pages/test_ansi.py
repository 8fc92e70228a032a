"""Terminal text becomes escaped HTML with classes of a fixed table."""

from __future__ import annotations

import re
import time

import pytest

from ciserver.pipelines.ansi import to_html

CLASSES = re.compile(r"(?:f\d+|b\d+|bold|faint|italic|underline|inverse|strike|hidden-char)")


def text_of(html: str) -> str:
    return re.sub(r"<[^>]*>", "", html)


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("plain", "plain"),
        ("\x1b[31mred\x1b[0m and plain", '<span class="f1">red</span> and plain'),
        ("\x1b[1;4;92mall\x1b[m", '<span class="f10 bold underline">all</span>'),
        ("\x1b[1mb\x1b[22mn", '<span class="bold">b</span>n'),
        (
            "\x1b[44;97mon blue\x1b[49m-",
            '<span class="f15 b4">on blue</span><span class="f15">-</span>',
        ),
        ("\x1b[38;5;196mred\x1b[39mn", '<span class="f1">red</span>n'),
        ("\x1b[38;5;3mx", '<span class="f3">x</span>'),
        ("\x1b[48;2;0;170;0mx", '<span class="b2">x</span>'),
        ("\x1b[38:2:255:255:255mx", '<span class="f15">x</span>'),
        ("\x1b[7mx\x1b[27my", '<span class="inverse">x</span>y'),
        ("\x1b[;31mx", '<span class="f1">x</span>'),
    ],
)
def test_sgr_sets_classes(text: str, html: str) -> None:
    assert to_html(text) == html


@pytest.mark.parametrize(
    "text",
    [
        "a\x1b[2Kb",  # erase line
        "a\x1b[10;20Hb",  # cursor
        "a\x1b[?25lb",  # private mode
        "a\x1b]0;title\x07b",
        "a\x1b]8;;javascript:alert(1)\x1b\\b",  # hyperlink
        "a\x1bPq#0;1\x1b\\b",  # sixel
        "a\x1b(Bb",  # charset
        "a\x07\x00\x08b",
        "a\x9b31;1Hb",  # C1 control sequence
        "a\x1b[>4;2mb",  # xterm's own
        "ab\x1b",
        "ab\x1b[",
        "ab\x1b[31",
    ],
)
def test_everything_else_is_dropped(text: str) -> None:
    assert text_of(to_html(text)).startswith("ab")
    assert "\x1b" not in to_html(text)
    assert "javascript" not in to_html(text)


@pytest.mark.parametrize(
    "payload",
    [
        "<script>alert(1)</script>",
        '"><img src=x onerror=alert(1)>',
        "</span></pre><svg onload=alert(1)>",
        "\x1b[31m<b>\x1b[0m&lt;",
        "\x1b[<script>m",
        "\x1b[31;<svg>m",
        "<scr\x1b[31mipt>alert(1)</scr\x1b[0mipt>",
    ],
)
def test_markup_stays_text(payload: str) -> None:
    html = to_html(payload)
    for tag in re.findall(r"<[^>]*>", html):
        assert re.fullmatch(r'</span>|<span class="[a-z0-9 -]+">', tag), html
    for names in re.findall(r'class="([^"]*)"', html):
        assert all(CLASSES.fullmatch(name) for name in names.split())


def test_a_progress_bar_shows_its_last_state() -> None:
    assert to_html("10%\r50%\r100%") == "100%"
    assert to_html("done\r") == "done"
    assert to_html("\r\r") == ""


def test_characters_that_reorder_text_are_shown_by_number() -> None:
    html = to_html("access\u202e levels\u2066")
    assert "\u202e" not in html
    assert "U+202E" in html
    assert "U+2066" in html


def test_parameters_without_end_change_nothing_and_cost_nothing() -> None:
    assert to_html("\x1b[" + ";".join(["1"] * 100_000) + "mx") == '<span class="bold">x</span>'
    assert to_html("\x1b[38;5mx") == '<span class="f0">x</span>'
    assert to_html("\x1b[999999999999mx") == "x"


@pytest.mark.parametrize(
    "unit", ["\x1b[", "\x1b]", "\x1b[31", "\x1b[31m", "\x1bP", "\x1b]8;;", "<", "\r"]
)
def test_hostile_lines_take_linear_time(unit: str) -> None:
    text = unit * (64 * 1024 // len(unit))
    start = time.perf_counter()
    to_html(text)
    assert time.perf_counter() - start < 1.0
