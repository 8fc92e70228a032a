"""Whatever is written into a Dockerfile or a COPY: an image's plan, or an error with its place."""

from __future__ import annotations

import posixpath
import re
from contextlib import suppress

from hypothesis import example, given, settings
from hypothesis import strategies as st

from builders.context.ignore import Ignore
from builders.context.tree import ContextTree
from builders.dockerfile import parse_dockerfile
from builders.dockerfile.excerpt import point_at
from builders.errors import BuildError, ContextError, DockerfileError
from builders.fakes import MemoryContext
from builders.images.config import ImageConfig
from builders.plan import make_plan
from builders.remote.places import NoPlace, parse_place
from builders.steps import config
from builders.steps.copy import _destination
from builders.steps.sources import ContextSource
from builders.steps.state import StageState

VOCABULARY = """
    FROM RUN COPY ADD ARG ENV LABEL USER WORKDIR EXPOSE VOLUME SHELL CMD ENTRYPOINT HEALTHCHECK
    ONBUILD STOPSIGNAL MAINTAINER AS scratch busybox NONE a=1 $a ${a:-b} ${ ${a/ ${a#} ${a%%*}
    --from=0 --from=x --mount=type=cache,target=/c --chmod=u+x --mount=type=bind,from=a --mount=
    --link --link=no --platform=$x # \\ ` << <<E <<-'E' E ["a", "b"] [] ["a" {"x":1} "open '
    ../.. / /x/ . 80/udp 99999 1h -- --
"""
ODD = ["\n", "\n\n", "\\\n", "\r\n", "\t", "\0", "é", "\ud800", "\u2028", "# escape=`\n", "="]
WORDS = st.sampled_from([*VOCABULARY.split(), *ODD])
TEXTS = st.lists(WORDS, max_size=25).map(" ".join) | st.text(max_size=80)
PLACE = re.compile(r"(D|D:\d+)\Z")


def understood(data: bytes) -> None:
    dockerfile = parse_dockerfile(data, file="D")
    make_plan(dockerfile, build_args={"b": "1"})


@settings(max_examples=150, deadline=None)
@given(TEXTS)
@example("FROM a\nRUN <<E")
@example("FROM a\nENV a=${")
@example("FROM a\nRUN --mount=type=cache,target=/x,mode=9")
@example("FROM a\nHEALTHCHECK --retries=² CMD x")
@example("FROM a\nCOPY --from=² a b")
@example("FROM a\nUSER")
@example("FROM a\nHEALTHCHECK --retries=" + "1" * 5000 + " CMD x")
@example("FROM a\nCOPY --from=" + "1" * 5000 + " a b")
def test_any_text_is_a_plan_or_an_error_with_its_place(text: str) -> None:
    data = text.encode("utf-8", "surrogatepass")
    for head in (b"", b"FROM scratch\n"):
        try:
            understood(head + data)
        except DockerfileError as error:
            assert PLACE.match(error.place), error.place
            point_at(error, head + data, "D")
            assert "\n" not in error.message


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_plan_or_an_error_with_its_place(data: bytes) -> None:
    with suppress(DockerfileError):
        understood(b"FROM a\n" + data)


STATE = StageState.of_image(ImageConfig(architecture="amd64"), ())


@settings(max_examples=120, deadline=None)
@given(TEXTS)
@example("STOPSIGNAL " + "1" * 5000)
@example("EXPOSE " + "1" * 5000)
def test_what_is_parsed_is_carried_out_or_refused_with_its_place(text: str) -> None:
    from builders.dockerfile import instructions as spec
    from builders.dockerfile.expand import Expander

    plain = {
        spec.Env: config.env, spec.Label: config.label, spec.User: config.user,
        spec.Expose: config.expose, spec.Volume: config.volume, spec.Stopsignal: config.stopsignal,
        spec.Cmd: config.cmd, spec.Healthcheck: config.healthcheck,
    }  # fmt: skip
    try:
        dockerfile = parse_dockerfile(b"FROM a\n" + text.encode("utf-8", "surrogatepass"), file="D")
        for step in dockerfile.instructions:
            act = plain.get(type(step))
            if act is not None:
                act(
                    step, STATE, Expander({}, escape=dockerfile.escape, at=step.at)
                ).config.to_json()
    except BuildError as error:
        assert PLACE.match(error.place), (error.place, error.message)


PARTS = st.sampled_from(
    ["a", "b", "..", ".", "", "*", "?", "[a-b]", "[", "\\", "é", "a b", "\udc80"]
)
PATHS = st.lists(PARTS, max_size=6).map("/".join)


@settings(max_examples=120, deadline=None)
@given(PATHS, st.sampled_from(["/", "/w", "/w/x"]))
def test_no_destination_leaves_the_root(dest: str, workdir: str) -> None:
    path = _destination(dest, workdir)
    assert path.startswith("/") and not path.startswith("//")
    assert ".." not in path.split("/")
    assert posixpath.normpath(path).rstrip("/") == path.rstrip("/")


@settings(max_examples=120, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["a", "b", "d/a", "d/e/b", "l"]), st.binary(max_size=2) | PATHS, max_size=5
    ),
    PATHS,
)
def test_no_source_leaves_the_context_whatever_its_links_say(
    files: dict[str, bytes | str], pattern: str
) -> None:
    files = {
        p: c.encode("utf-8", "replace").decode() if isinstance(c, str) else c
        for p, c in files.items()
    }
    source = ContextSource(ContextTree(MemoryContext(files), lambda: Ignore.parse(b"")))
    known = {"", *files} | {p[:i] for p in files for i, c in enumerate(p) if c == "/"}
    with suppress(ContextError):
        for found in source.find(pattern):
            assert found.real in known
            for item in source.items(found, None):
                assert ".." not in item.path.split("/")
                list(item.chunks)


@settings(max_examples=120, deadline=None)
@given(st.text(max_size=60) | PATHS.map("https://h.test/x.git#".__add__))
@example("http://[")
@example("https://[::1]x/a.git")
def test_any_source_of_add_is_told_apart(text: str) -> None:
    with suppress(NoPlace):
        place = parse_place(text)
        assert place is None or (place.host and not place.ref.startswith("-"))
