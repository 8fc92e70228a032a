"""Dockerfile text -> instructions, beyond what the golden cases show."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from builders.dockerfile import parse_dockerfile
from builders.dockerfile.expand import Expander
from builders.dockerfile.flags import duration
from builders.dockerfile.instructions import Arg, Copy, From, Heredoc, Onbuild, Position, Run
from builders.dockerfile.mounts import parse_mount
from builders.errors import DockerfileError
from builders.images.config import ImageConfig
from builders.plan import host_platform, normal_platform
from builders.steps import config
from builders.steps.state import StageState

AT = Position("Dockerfile", 7, 7, "RUN x")


def test_every_instruction_knows_its_lines() -> None:
    parsed = parse_dockerfile(b"# c\nFROM a AS b\n\nRUN one && \\\n  two\nCOPY <<E /x\nt\nE\n")
    assert [(i.at.line, i.at.end) for i in parsed.instructions] == [(2, 2), (4, 5), (6, 8)]
    assert [i.name for i in parsed.instructions] == ["FROM", "RUN", "COPY"]
    assert parsed.instructions[1].at.place == "Dockerfile:4"


def test_from_keeps_image_name_and_platform() -> None:
    (line,) = parse_dockerfile(b"FROM --platform=linux/amd64 x:1@y AS Name").instructions
    assert isinstance(line, From)
    assert (line.image, line.stage, line.platform) == ("x:1@y", "name", "linux/amd64")


def test_heredocs_are_told_from_sources() -> None:
    parsed = parse_dockerfile(b"FROM a\nCOPY one <<A <<'B' /d/\n1\nA\n2\nB\n")
    copy = parsed.instructions[1]
    assert isinstance(copy, Copy)
    assert copy.sources == ("one",)
    assert copy.heredocs == (Heredoc("A", "1\n", True), Heredoc("B", "2\n", False))


def test_onbuild_parses_its_trigger_at_once() -> None:
    parsed = parse_dockerfile(b"FROM a\nONBUILD RUN --network=none true\n")
    trigger = parsed.instructions[1]
    assert isinstance(trigger, Onbuild) and isinstance(trigger.parsed, Run)
    assert trigger.parsed.network == "none"
    assert trigger.parsed.at.place == "Dockerfile:2"


def test_a_mistake_inside_onbuild_is_found_where_it_is_written() -> None:
    with pytest.raises(DockerfileError, match=r"^Dockerfile:2: Unknown instruction"):
        parse_dockerfile(b"FROM a\nONBUILD RUNN true\n")


def test_carriage_returns_and_a_byte_order_mark_do_not_matter() -> None:
    parsed = parse_dockerfile(b"\xef\xbb\xbfFROM a\r\nRUN x\r\n")
    assert [i.at.text for i in parsed.instructions] == ["FROM a", "RUN x"]


def test_a_file_that_is_not_utf8_names_the_line() -> None:
    with pytest.raises(DockerfileError, match=r"^Dockerfile:2: .* not UTF-8"):
        parse_dockerfile(b"FROM a\nRUN \xff\n")


def test_a_zero_byte_is_refused_before_it_gets_into_a_command() -> None:
    with pytest.raises(DockerfileError, match=r"^Dockerfile:2: .* zero byte"):
        parse_dockerfile(b"FROM a\nRUN x\0y\n")


def test_a_foreign_front_end_is_a_warning() -> None:
    parsed = parse_dockerfile(b"# syntax=evil/front:1\nFROM a\n")
    assert "evil/front:1" in parsed.warnings[0]
    assert parse_dockerfile(b"# syntax=docker/dockerfile:1\nFROM a\n").warnings == ()
    later = parse_dockerfile(b"# check=skip=all\n# syntax=evil/front:1\nFROM a\n")
    assert later.warnings == (
        "Dockerfile:2: the front end evil/front:1 is not used: Gantry has its own",
    )


def test_the_check_directive_is_read_over_and_the_ones_after_it_hold() -> None:
    text = b"# Check = skip=JSONArgsRecommended;error=false\n# escape=`\nFROM a\nRUN b `\n c\n"
    parsed = parse_dockerfile(text)
    assert (parsed.escape, len(parsed.instructions), parsed.warnings) == ("`", 2, ())
    with pytest.raises(DockerfileError, match=r"^Dockerfile:2: Only one check"):
        parse_dockerfile(b"# check=skip=all\n# check=skip=all\nFROM a\n")


def test_a_check_that_shall_fail_the_build_is_a_warning() -> None:
    parsed = parse_dockerfile(b"# escape=`\n# check = skip=all; error=true\nFROM a\n")
    assert parsed.warnings == (
        "Dockerfile:2: error=true has no effect: Gantry has no checks of style",
    )
    assert parse_dockerfile(b"FROM a\n# check=error=true\n").warnings == ()


@pytest.mark.parametrize(
    ("text", "seconds"), [("30s", 30), ("1m30s", 90), ("500ms", 0.5), ("1.5h", 5400), ("0", 0)]
)
def test_durations_are_go_durations(text: str, seconds: float) -> None:
    assert duration(text, AT) == seconds * 1e9


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("$a", "1"),
        ("${a}b", "1b"),
        ("$none", ""),
        ("'$a'", "$a"),
        ('"$a b"', "1 b"),
        ("\\$a", "$a"),
        ("${none:-$a}", "1"),
        ("${empty-x}${empty:-x}", "x"),
        ("${a:+y}", "y"),
        ("${p##*/}", "c.tar.gz"),
        ("${p%%.*}", "/b/c"),
        ("${p//a/_}", "/b/c.t_r.gz"),
        ("plain text", "plain text"),
    ],
)
def test_variables_expand_as_in_buildkit(text: str, expanded: str) -> None:
    env = {"a": "1", "empty": "", "p": "/b/c.tar.gz"}
    assert Expander(env, escape="\\", at=AT).word(text) == expanded


def test_a_mount_is_understood_in_full() -> None:
    mount = parse_mount("type=cache,dst=/c,id=pip,sharing=locked,mode=0700,uid=5", AT)
    assert (mount.kind, mount.target, mount.id, mount.sharing) == ("cache", "/c", "pip", "locked")
    assert (mount.mode, mount.uid, mount.read_only) == (0o700, 5, False)
    assert parse_mount("target=/x,source=y", AT).read_only
    assert not parse_mount("target=/x,rw", AT).read_only
    assert not parse_mount("target=/x,ro=false", AT).read_only
    assert parse_mount("type=cache,target=/x,readonly", AT).read_only
    assert parse_mount("type=secret,id=t,required", AT).required
    assert parse_mount("type=tmpfs,target=/x,size=1g", AT).size == 1 << 30


@pytest.mark.parametrize(
    "text",
    [
        "type=ssh,env=A",
        "type=bind,target=/x,bind-propagation=shared",
        "type=bind",
        "type=secret",
        "type=cache,target=/x,sharing=free",
        "type=tmpfs,target=/x,size=big",
        "type=cache,target=/x,mode=rwx",
        "type=bind,target=/x,rw=maybe",
    ],
)
def test_a_mount_that_is_not_understood_is_refused(text: str) -> None:
    with pytest.raises(DockerfileError, match=r"^Dockerfile:7: "):
        parse_mount(text, AT)


@pytest.mark.parametrize("text", ["99999999999999999999h", "9" * 400 + "h", "8761h"])
def test_a_time_that_engines_cannot_hold_is_refused(text: str) -> None:
    with pytest.raises(DockerfileError, match="too long a time"):
        duration(text, AT)


@pytest.mark.parametrize(
    "flag",
    [
        "type=cache,target=/c,uid=-268500992",
        "type=cache,target=/c,gid=65536",
        "type=cache,target=/c,mode=77777",
        "type=tmpfs,target=/c,size=-5",
    ],
)
def test_a_mounts_numbers_stay_within_the_sandbox(flag: str) -> None:
    with pytest.raises(DockerfileError, match="is not from 0 to"):
        parse_mount(flag, AT)


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("linux/amd64", "linux/amd64"),
        ("amd64", "linux/amd64"),
        ("Linux/x86_64", "linux/amd64"),
        ("linux/amd64/v1", "linux/amd64"),
        ("linux/aarch64", "linux/arm64"),
        ("linux/arm64/v8", "linux/arm64"),
        ("linux/arm/v6", "linux/arm/v6"),
        ("windows/amd64", "windows/amd64"),
        ("local", host_platform()),
        ("linux", host_platform()),
    ],
)
def test_platforms_have_one_spelling(text: str, normal: str) -> None:
    assert normal_platform(text) == normal


def test_a_dockerfile_without_bounds_is_refused() -> None:
    """Each stage has a thread; each instruction looks at all variables before it."""
    stages = "FROM a AS s0\n" + "".join(f"FROM s{n} AS s{n + 1}\n" for n in range(20_000))
    with pytest.raises(DockerfileError, match="more than 500 stages") as caught:
        parse_dockerfile(stages.encode(), file="D")
    assert caught.value.place == "D:501"
    with pytest.raises(DockerfileError, match="more than 10,000 instructions"):
        parse_dockerfile(b"FROM a\n" + b"ENV a=b\n" * 10_001, file="D")


@pytest.mark.parametrize(
    "line",
    [
        "ARG " + " ".join(f"a{n}" for n in range(100_000)),
        "ARG " + " ".join(f"a{n}=$a{n - 1}" for n in range(50_000)),
        "ENV " + " ".join(f"a{n}=$b" for n in range(50_000)),
        "LABEL " + " ".join(f"a{n}=$b" for n in range(50_000)),
        "EXPOSE " + " ".join(f"{n}-65535" for n in range(1, 20_000)),
    ],
)
def test_a_line_of_a_megabyte_takes_seconds_and_not_hours(line: str) -> None:
    """Whoever pushes writes it, and nothing can end a step that only thinks."""
    step = parse_dockerfile(f"FROM a\n{line}\n".encode()).instructions[1]
    many = {f"v{n}": "x" for n in range(20_000)}
    state = replace(StageState.of_image(ImageConfig(architecture="amd64"), ()), env=many)
    started = time.process_time()
    expander = Expander(state.env, escape="\\", at=step.at)
    if isinstance(step, Arg):
        config.arg(step, state, expander, given={}, inherited={})
    else:
        getattr(config, step.name.lower())(step, state, expander)
    assert time.process_time() - started < 20
