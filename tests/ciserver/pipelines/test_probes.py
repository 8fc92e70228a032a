"""What a service is asked, and what is told of its log."""

from __future__ import annotations

from itertools import islice
from typing import Any

import pytest

from builders.images.config import Healthcheck as ImageCheck
from builders.images.config import ImageConfig
from ciserver.lib.crypto import Secret
from ciserver.lib.endings import LONG_LINE
from ciserver.lib.masking import Masker
from ciserver.pipelines.definition import parse
from ciserver.pipelines.runner.probes import (
    KEPT,
    SLOWEST,
    TOLD,
    Readiness,
    Tail,
    Times,
    pauses,
    readiness,
)

SECRET = "correct-horse-battery"
SECOND = 10**9  # nanoseconds


def asked(**config: Any) -> Readiness:
    return readiness(None, ImageConfig(architecture="amd64", **config))


@pytest.mark.parametrize("port", ["0/tcp", "65536/tcp", "80-90/tcp", "53/udp", "9" * 5000, "²"])
def test_what_an_image_exposes_that_is_no_port_is_not_asked(port: str) -> None:
    assert asked(exposed_ports=(port,)).kind == "up"
    assert asked(exposed_ports=(port, "65535/tcp")).port == 65535


@pytest.mark.parametrize("time", [0, -SECOND, 1])
def test_times_of_an_image_that_cannot_be_count_as_left_out(time: int) -> None:
    usual = asked(healthcheck=ImageCheck(test=("CMD", "x")))
    odd = ImageCheck(
        test=("CMD", "x"), interval=time, timeout=time, start_period=time, retries=min(time, 0)
    )
    assert asked(healthcheck=odd).times == usual.times == Times(SLOWEST, 30, 90)


def test_times_of_an_image_are_bounded() -> None:
    huge = 10**400
    check = ImageCheck(
        test=("CMD", "x"), interval=huge, timeout=huge, start_period=huge, retries=huge
    )
    times = asked(healthcheck=check).times
    assert (times.interval, times.timeout, times.longest) == (SLOWEST, 10**6, 1001 * 10**6)


OWN = ImageCheck(test=("CMD", "x"), interval=SECOND, timeout=9 * SECOND, start_period=5 * SECOND)


@pytest.mark.parametrize(
    ("said", "kind", "times"),
    [
        ("{tcp: 1}", "tcp", Times(1, 5, 60)),
        (
            "{tcp: 1, interval: 2s, retries: 4, start_period: 3s, timeout: 7s}",
            "tcp",
            Times(2, 7, 11),
        ),
        ("{tcp: 1, interval: 10s, retries: 2}", "tcp", Times(SLOWEST, 5, 20)),
        ("{}", "test", Times(1, 9, 8)),
        ("{start_period: 30s}", "test", Times(1, 9, 33)),
        ("{interval: 2s, timeout: 3s, retries: 4}", "test", Times(2, 3, 13)),
    ],
)
def test_times_of_gantry_yml_are_of_its_check_or_of_the_images_own(
    said: str, kind: str, times: Times
) -> None:
    check = parse(f"services: {{db: {{healthcheck: {said}}}}}").services["db"].healthcheck
    found = readiness(check, ImageConfig(architecture="amd64", healthcheck=OWN))
    assert (found.kind, found.times) == (kind, times)


def test_a_check_is_tried_often_at_first_and_then_every_interval() -> None:
    first, *others = islice(pauses(1.5), 40)
    assert first < 0.1
    assert others == sorted(others)
    assert max(others) == others[-1] == 1.5


def tail(*said: bytes, words: str = "") -> Tail:
    made = Tail(Masker([Secret(SECRET)]), words)
    for data in said:
        made.add(data)
    return made


def test_a_secret_is_taken_out_before_the_text_is_cut() -> None:
    rest = "x" * (TOLD - len(SECRET) // 2)
    assert tail(f"{SECRET}{rest}\n".encode()).lines(15) == f"***{rest}"[-TOLD:]


def test_no_cut_of_what_is_kept_leaves_a_part_of_a_secret() -> None:
    for shift in range(len(SECRET) + 2):
        rest = b"y" * (KEPT - shift - 5) + b"\nend\n"
        for said in ((SECRET.encode() + rest,), (SECRET.encode(), rest)):
            lines = tail(*said).lines(15)
            assert lines.endswith("end")
            assert not any(part in lines for part in (SECRET[:4], SECRET[-4:], "orse"))


def test_one_line_without_end_is_told_as_such() -> None:
    assert tail(*[SECRET.encode() * 100] * 40).lines(1) == LONG_LINE.decode()


def test_a_secret_in_pieces_or_in_colours_is_known() -> None:
    half = len(SECRET) // 2
    said = SECRET[:half].encode(), SECRET[half:].encode()
    assert tail(*said).lines(1) == "***"
    for between in (b"\x1b[31m", b"\0", b"\x7f", b"\x1c"):
        assert tail(between.join(said)).lines(1) == "***"


def test_no_control_character_comes_into_a_row() -> None:
    assert tail(b"a\0b\r\n\x1b[1mc\td\x1b[0m\x07\n\n").lines(15) == "ab\nc\td"


@pytest.mark.parametrize("at", range(8))
def test_words_of_the_log_are_seen_wherever_it_is_cut(at: int) -> None:
    assert tail(b"is up n"[:at], b"is up n"[at:], words="is up").seen
    assert tail(*(bytes([byte]) for byte in b"it is up"), words="is up").seen
    assert not tail(b"is u", b"is p", words="is up").seen
    assert tail(b"x", words="x").seen
