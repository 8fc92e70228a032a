"""Containers of a finished image: commands in them, and files out of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from builders import containers
from builders.containers import Container, open_container
from builders.errors import UserError
from builders.images.store import Image
from runtime import kept, use
from runtime.errors import SpecError
from runtime.sandbox import Stream
from runtime.spec import Limits, Outcome
from tests.builders.conftest import IDS, Builder

pytestmark = pytest.mark.root
Project = Callable[[Mapping[str, str]], Path]

DOCKERFILE = """FROM busybox
ENV GREETING=hello
WORKDIR /work
RUN chown alice /work
USER alice
ENTRYPOINT ["echo"]
CMD ["by", "default"]
"""


@pytest.fixture
def image(builder: Builder, project: Project) -> Image:
    return builder.one(project({"Dockerfile": DOCKERFILE}))


@pytest.fixture
def container(builder: Builder, image: Image) -> Iterator[Container]:
    with open_container(image, store=builder.store, state=builder.state, ids=IDS) as opened:
        yield opened


class Output:
    def __init__(self) -> None:
        self.text = ""

    def __call__(self, stream: Stream, data: bytes) -> None:
        self.text += data.decode()


def test_nothing_asked_runs_entrypoint_and_command_of_the_image(container: Container) -> None:
    output = Output()
    assert container.run(on_output=output).ok
    assert output.text == "by default\n"


def test_a_string_runs_in_the_shell_as_the_images_user(container: Container) -> None:
    output = Output()
    container.run('id -un; pwd; echo "$GREETING $HOME $MORE"', env={"MORE": "x"}, on_output=output)
    assert output.text.split("\n")[:3] == ["alice", "/work", "hello /home/alice x"]


def test_a_list_runs_as_it_is_with_another_user_and_folder(container: Container) -> None:
    output = Output()
    container.run(["sh", "-c", "id -u; pwd"], user="root", workdir="/new/one", on_output=output)
    assert output.text == "0\n/new/one\n"


def test_commands_see_what_earlier_ones_wrote_and_the_image_does_not(
    builder: Builder, image: Image, container: Container
) -> None:
    assert container.run("echo 1 > /work/f").ok
    assert container.run("test -e /work/f").ok
    with open_container(image, store=builder.store, state=builder.state, ids=IDS) as other:
        assert not other.run("test -e /work/f").ok


def test_nobody_looks_into_a_container_while_it_holds_secrets(
    container: Container, builder: Builder
) -> None:
    refused: list[str] = []

    def look(_stream: Stream, _data: bytes) -> None:
        (box,) = builder.state.boxes()
        with pytest.raises(SpecError) as refusal:
            use.execute(builder.state, box.record.id, ["true"])
        refused.append(refusal.value.message)

    assert container.run('echo "$TOKEN"; sleep 0.5', secret_env={"TOKEN": "x"}, on_output=look).ok
    assert "holds secrets" in refused[0]


def test_limits_are_told_apart_from_failures(container: Container) -> None:
    assert container.run("exit 9").exit_code == 9
    assert container.run("sleep 30", limits=Limits(timeout=0.5)).outcome is Outcome.TIMEOUT


def test_reports_are_found_and_read_inside_the_root(container: Container) -> None:
    container.run("mkdir -p r/a/b; echo 1 > r/x.xml; echo 2 > r/a/b/y.xml; ln -s /etc r/etc")
    assert container.glob("r/*.xml") == ["/work/r/x.xml"]
    assert container.glob("/work/r/**/*.xml") == ["/work/r/a/b/y.xml", "/work/r/x.xml"]
    assert container.glob("r/a/b/y.xml") == ["/work/r/a/b/y.xml"]
    assert container.glob("r/none.xml") == []
    assert container.read_file("r/x.xml", 100) == b"1\n"


def test_a_directory_stands_for_all_in_it_where_that_is_asked_for(container: Container) -> None:
    container.run(
        "mkdir -p r/a/b r.d; echo 1 > r/x; echo 2 > r/a/b/y; echo 3 > r.d/z; ln -s r link;"
        "ln -s /etc/passwd r/passwd; ln -s / r/root; mkfifo r/pipe"
    )
    both = ["/work/r/a/b/y", "/work/r/x"]
    for pattern in ("r", "r/", "/work/r/**", "./r/../r"):
        assert container.glob(pattern, below=True) == both
    assert container.glob("link", below=True) == ["/work/link/a/b/y", "/work/link/x"]
    assert container.glob("r*", below=True) == sorted([*both, "/work/r.d/z"])
    assert container.glob("r/x", below=True) == ["/work/r/x"]
    assert container.glob("../../../work/r/[x-z]", below=True) == ["/work/r/x"]
    assert container.glob("r") == container.glob("none", below=True) == []


def test_a_report_is_found_behind_thousands_of_files_or_that_it_cannot_be_is_said(
    container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    container.run(
        "mkdir -p modules reports; cd modules; seq 12000 | xargs touch; echo 1 > ../reports/x.xml"
    )
    assert container.glob("**/*.xml") == ["/work/reports/x.xml"]
    monkeypatch.setattr(containers, "MOST_WALKED", 12_000)
    with pytest.raises(OSError, match="more than 12000 files and folders: name one further down"):
        container.glob("**/*.xml")
    assert container.glob("reports/*.xml") == ["/work/reports/x.xml"]


def test_a_report_that_is_a_trap_is_refused(container: Container) -> None:
    container.run(
        "ln -s /../../../../etc/hostname host; mkfifo pipe; ln -s /dev/zero zero;"
        "head -c 2000 /dev/zero > big"
    )
    assert container.read_file("host", 1000) == b""  # the container's own, not the machine's
    for path in ("pipe", "zero", "big", "none"):
        with pytest.raises(OSError):
            container.read_file(path, 1000)


def test_an_unknown_user_is_one_sentence(container: Container) -> None:
    with pytest.raises(UserError, match="The image has no user 'bob'"):
        container.run("true", user="bob")


def test_an_image_without_command_says_so(builder: Builder, project: Project) -> None:
    image = builder.one(project({"Dockerfile": "FROM busybox\nCMD []\n"}))
    with open_container(image, store=builder.store, state=builder.state, ids=IDS) as container:
        with pytest.raises(UserError, match="neither an ENTRYPOINT nor a CMD"):
            container.run()


def test_what_a_failed_command_left_can_be_looked_at(container: Container, image: Image) -> None:
    receipt = container.run("echo broken > trace; exit 3", keep=60, secret_env={"TOKEN": "x"})
    state = container._state
    output = Output()
    seen = kept.execute(
        state, receipt.kept, ["sh", "-c", "id -un; pwd; cat trace; echo $GREETING$TOKEN"],
        on_output=output,
    )  # fmt: skip
    kept.drop(state, receipt.kept)
    assert seen.ok and output.text == "alice\n/work\nbroken\nhello\n"
