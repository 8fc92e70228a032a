"""``python -m builders``, run as a person runs it."""

from __future__ import annotations

import hashlib
import io
import json
import re
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest

from builders.cli import main
from builders.cli.options import parse_arguments
from ciserver.config import Config
from ciserver.pipelines.runner.workshop import MAX_OUTPUT
from tests.builders.conftest import Builder
from tests.builders.test_build import commit

pytestmark = pytest.mark.root
Project = Callable[[Mapping[str, str]], Path]
CHECKOUT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def tool(builder: Builder, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Done]]:
    """The command in this process: starting one of its own takes longer than most builds."""

    def run(*words: str | Path, **env: str) -> Done:
        out, err = io.StringIO(), io.StringIO()
        with monkeypatch.context() as patched, redirect_stdout(out), redirect_stderr(err):
            for name, value in env.items():
                patched.setenv(name, value)
            try:
                code = main(["--store", str(builder.store.root), *map(str, words)])
            except SystemExit as error:  # what argparse thinks of the words
                code = int(error.code or 0)
        return Done(code, out.getvalue(), err.getvalue())

    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)


Tool = Callable[..., Done]


def test_it_is_a_program(builder: Builder, project: Project) -> None:
    root = project({"Dockerfile": "FROM busybox\nLABEL a=b\n"})
    command = [sys.executable, "-m", "builders", "--store", str(builder.store.root)]
    done = subprocess.run(
        [*command, "build", str(root)], cwd=CHECKOUT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout[:7]) == (0, "sha256:")
    assert "LABEL a=b" in done.stderr


def test_a_folder_is_built_tagged_and_inspected(tool: Tool, project: Project) -> None:
    root = project({"Dockerfile": "FROM busybox\nARG A\nRUN echo hello $A > /f\nCMD go\n"})
    done = tool("build", "-t", "cli:1", "--build-arg", "A=x", "--label", "l=1",
                "--network", "none", "--memory", "64m", root)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "RUN echo hello $A > /f" in done.stderr
    shown = json.loads(tool("inspect", "cli:1").stdout)
    assert shown["id"] == done.stdout.strip()
    assert shown["config"]["Labels"] == {"l": "1"}


def test_a_dockerfile_is_named_from_here_or_inside_the_context(
    tool: Tool, project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def label(*words: str | Path) -> str:
        done = tool("build", "-q", "-t", "cli:f", "--network", "none", *words)
        assert done.returncode == 0, done.stderr
        return str(json.loads(tool("inspect", "cli:f").stdout)["config"]["Labels"]["at"])

    root = project(
        {
            "Dockerfile": "FROM busybox\nLABEL at=context\n",
            "sub/D": "FROM busybox\nLABEL at=sub\n",
            "E": "FROM busybox\nLABEL at=inside\n",
        }
    )
    (tmp_path / "E").write_text("FROM busybox\nLABEL at=here\nCOPY sub/D /\n")
    monkeypatch.chdir(tmp_path)
    assert label(root) == "context"
    assert label("-f", "context/sub/D", root) == "sub"  # from here, as docker has it
    assert label("-f", root / "sub/D", "context") == "sub"
    assert label("-f", "sub/D", root) == "sub"  # not here, but there
    assert label("-f", "E", root) == "here"  # outside of the context, as docker allows
    assert label("-f", "E", "context/../context") == "here"
    (tmp_path / "E").unlink()
    assert label("-f", "E", root) == "inside"
    done = tool("build", "-f", "none", root)
    assert (done.returncode, done.stderr[:11]) == (1, "There is no")


@pytest.mark.parametrize("dockerfile", ["context/docker/app.Dockerfile", "beside/app.Dockerfile"])
def test_the_dockerignore_beside_a_dockerfile_wins_inside_the_context_and_outside(
    tool: Tool,
    project: Project,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    dockerfile: str,
) -> None:
    root = project({"a": "1", "b": "2", ".dockerignore": "a\n"})
    monkeypatch.chdir(tmp_path)
    path = Path(dockerfile)
    path.parent.mkdir()
    path.write_text("FROM busybox\nCOPY . /all\n")

    def copied() -> list[str]:
        done = tool("build", "-q", "-t", "cli:i", "--output", "docker:i.tar", "-f", path, root)
        assert done.returncode == 0, done.stderr
        with tarfile.open("i.tar") as outer:
            layer = json.load(outer.extractfile("manifest.json") or io.BytesIO())[0]["Layers"][-1]
            with tarfile.open(fileobj=outer.extractfile(layer)) as tar:
                return sorted(set(tar.getnames()) & {"all/a", "all/b"})

    assert copied() == ["all/b"]
    own = path.with_name(f"{path.name}.dockerignore")
    own.write_text("b\n")
    assert copied() == ["all/a"]
    own.write_text("[\n")
    done = tool("build", "-q", "-f", path, root)
    assert f"{path.name}.dockerignore:1: " in done.stderr


def test_a_commit_is_built_and_two_builds_are_one_image(tool: Tool, project: Project) -> None:
    root = project({"app/Dockerfile": "FROM busybox\nCOPY f /f\n", "app/f": "1"})
    commit(root, 1_700_000_000)
    first = tool("build", "-q", f"{root}#HEAD:app")
    assert first.returncode == 0, first.stderr
    assert tool("build", "-q", f"{root}#HEAD:app").stdout == first.stdout


def test_a_failing_step_exits_1_with_its_place(tool: Tool, project: Project) -> None:
    root = project({"Dockerfile": "FROM busybox\nRUN echo last words; exit 5\n"})
    done = tool("build", "--network", "none", root)
    assert done.returncode == 1
    assert "Dockerfile:2: `RUN echo last words; exit 5` ended with exit code 5." in done.stderr
    assert "| last words" in done.stderr
    assert "MiB of memory" in done.stderr


def test_a_mistake_in_the_dockerfile_exits_1(tool: Tool, project: Project) -> None:
    done = tool("build", project({"Dockerfile": "FROM busybox\nRUNN x\n"}))
    assert done.returncode == 1
    assert done.stderr.strip() == (
        'Dockerfile:2:1: Unknown instruction "RUNN" in `RUNN x`. Did you mean RUN?\n  RUNN x\n  ^'
    )


def test_what_is_ours_exits_2(tool: Tool, project: Project) -> None:
    root = project({"Dockerfile": "FROM 127.0.0.1:1/none\n"})
    done = tool("build", root)
    assert done.returncode == 2
    assert "could not do this: Dockerfile:1:6: The image 127.0.0.1:1/none" in done.stderr
    assert re.search(r"tried \d+ times in \d", done.stderr)  # which one, and for how long
    assert done.stderr.endswith("\n  FROM 127.0.0.1:1/none\n       ^\n")


def test_a_disk_that_cannot_take_the_output_is_said_in_one_line(
    tool: Tool, project: Project
) -> None:
    root = project({"Dockerfile": "FROM busybox\n"})
    done = tool("build", "-q", "--iidfile", "/dev/full", root)
    assert done.returncode == 2
    assert done.stderr == "Gantry could not do this: No space left on device.\n"


def test_a_secret_comes_from_a_file_or_a_variable(tool: Tool, project: Project) -> None:
    text = (
        "FROM busybox\nRUN --mount=type=secret,id=a --mount=type=secret,id=b "
        "cat /run/secrets/a /run/secrets/b | tr a-z A-Z\n"
    )
    root = project({"Dockerfile": text, "file": "one"})
    done = tool("build", "--network", "none", "--no-cache", "--secret", f"id=a,src={root}/file",
                "--secret", "id=b", root, b="two")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "ONETWO" in done.stderr


def test_an_image_leaves_as_an_oci_layout_and_comes_back(
    tool: Tool, project: Project, tmp_path: Path
) -> None:
    root = project({"Dockerfile": "FROM busybox\nRUN echo out > /f\n"})
    built = tool("build", "-q", "-t", "out:1", "--output", f"oci:{tmp_path}/o", root)
    assert built.returncode == 0, built.stderr
    index = json.loads((tmp_path / "o/index.json").read_text())
    assert index["manifests"][0]["annotations"] == {
        "org.opencontainers.image.ref.name": "docker.io/library/out:1"
    }
    back = tool("import", tmp_path / "o", "back:1")
    assert back.stdout == built.stdout, back.stderr
    subprocess.run(["tar", "-C", tmp_path / "o", "-cf", tmp_path / "o.tar", "."], check=True)
    packed = tool("import", tmp_path / "o.tar", "packed:1")
    assert packed.stdout == built.stdout, packed.stderr


def test_an_image_leaves_as_a_docker_archive_and_comes_back(
    tool: Tool, project: Project, tmp_path: Path
) -> None:
    root = project({"Dockerfile": "FROM busybox\nRUN echo out > /f\n"})
    first, second = tmp_path / "1.tar", tmp_path / "2.tar"
    built = tool("build", "-q", "-t", "out:2", "--output", f"docker:{first}", root)
    assert built.returncode == 0, built.stderr
    back = tool("import", first, "back:2")
    assert back.stdout == built.stdout, back.stderr
    tool("build", "-q", "-t", "out:2", "--output", f"docker:{second}", root)
    with tarfile.open(first) as tar:
        manifest = json.load(tar.extractfile("manifest.json") or io.BytesIO())
    assert manifest[0]["RepoTags"] == ["out:2"]
    shown = subprocess.run(
        ["skopeo", "inspect", "--config", f"docker-archive:{first}"],
        capture_output=True, check=True,
    )  # fmt: skip
    assert len(json.loads(shown.stdout)["rootfs"]["diff_ids"]) == 2


def test_an_image_leaves_as_dockers_own_flags_say(
    tool: Tool, project: Project, tmp_path: Path
) -> None:
    root = project({"Dockerfile": "FROM busybox\nRUN echo 1 > /f\n"})
    for spelling, kind in (
        ("type=oci,dest={}", "oci-archive"),
        ("type=oci,dest={},tar=false", "oci"),
        ("dest={},type=docker", "docker-archive"),
    ):
        target = tmp_path / kind
        made = tool("build", "-q", "-o", spelling.format(target), "--network", "none", root)
        assert made.returncode == 0, made.stderr
        shown = subprocess.run(
            ["skopeo", "inspect", "--config", f"{kind}:{target}"], capture_output=True, check=True
        )
        assert len(json.loads(shown.stdout)["rootfs"]["diff_ids"]) == 2
        assert tool("import", target, "back:3").stdout == made.stdout
    for wrong in ("type=local,dest=x", "type=oci", "type=oci,dest=-", "type=oci,dest=x,name=y"):
        done = tool("build", "-o", wrong, root)
        assert (done.returncode, "is not known. Write oci:FOLDER" in done.stderr) == (1, True)


def test_names_are_listed_given_and_taken(tool: Tool, project: Project) -> None:
    root = project({"Dockerfile": "FROM busybox\nLABEL a=b\n"})
    made = tool("build", "-q", "-t", "names:1", root, SOURCE_DATE_EPOCH="1700000000")
    assert tool("tag", "names:1", "registry.test/names:2").returncode == 0
    rows = [line.split() for line in tool("images").stdout.splitlines()]
    assert rows[0] == ["NAME", "ID", "CREATED", "SIZE"]
    short = made.stdout.removeprefix("sha256:")[:12]
    for name in ("names:1", "registry.test/names:2"):
        assert [name, short, "2023-11-14"] in [row[:3] for row in rows]
    (told,) = [one for one in json.loads(tool("images", "--json").stdout)
               if one["name"] == "docker.io/library/names:1"]  # fmt: skip
    assert told["id"] == made.stdout.strip() and told["size"] > 100_000
    assert tool("rmi", "names:1", "registry.test/names:2").returncode == 0
    assert "names" not in tool("images").stdout
    done = tool("rmi", "names:1")
    assert (done.returncode, done.stderr[:27]) == (1, "The store has no image name")
    assert tool("tag", "busybox", f"x@sha256:{'0' * 64}").returncode == 1


def test_the_time_of_an_image_is_the_build_argument(tool: Tool, project: Project) -> None:
    root = project({"Dockerfile": "FROM busybox\nRUN true\nLABEL a=b\n"})
    argument = ("--build-arg", "SOURCE_DATE_EPOCH=1600000000")
    done = tool("build", "-t", "dated:1", *argument, "--network", "none", root)
    assert done.returncode == 0 and "SOURCE_DATE_EPOCH" not in done.stderr
    shown = json.loads(tool("inspect", "dated:1").stdout)
    times = [shown["created"], *(line["created"] for line in shown["history"][1:])]
    assert set(times) == {"2020-09-13T12:26:40Z"}
    done = tool("build", "--build-arg", "SOURCE_DATE_EPOCH=yesterday", root)
    assert (done.returncode, "is no time in seconds since 1970" in done.stderr) == (1, True)


@pytest.mark.parametrize(
    ("flag", "command", "words"),
    [
        ("--disk=1m", "head -c 8m /dev/zero > /x", "wrote too much to the disk"),
        ("--inodes=50", "for i in $(seq 200); do > /f$i; done", "limit of 50 files reached"),
        ("--silence=0.5", "sleep 30", "was silent for too long"),
        ("--output-limit=64k", "yes", "too much output"),
    ],
)
def test_a_step_has_the_limits_that_are_asked_for(
    tool: Tool, project: Project, flag: str, command: str, words: str
) -> None:
    root = project({"Dockerfile": f"FROM busybox\nRUN {command}\n"})
    done = tool("build", "-q", "--network", "none", flag, root)
    assert (done.returncode, words in done.stderr) == (1, True), done.stderr


def test_the_limits_of_a_step_are_the_services_own_without_a_flag() -> None:
    options, config = parse_arguments(["build", "."]), Config.from_env({"GANTRY_SECRET_KEY": "x"})
    assert (options.disk, options.inodes) == (config.build_disk, config.build_inodes)
    assert (options.silence, options.timeout) == (config.build_silence, config.build_timeout)
    assert options.pids == config.build_pids
    assert options.output_limit == MAX_OUTPUT


def test_pull_asks_for_newer_bases(tool: Tool, project: Project) -> None:
    root = project({"Dockerfile": "FROM 127.0.0.1:1/gone:1\nLABEL a=b\n"})
    assert tool("tag", "busybox", "127.0.0.1:1/gone:1").returncode == 0
    assert tool("build", "-q", root).returncode == 0
    done = tool("build", "-q", "--pull", root)
    assert (done.returncode, "gone:1 may be newer elsewhere, and" in done.stderr) == (2, True)


@pytest.mark.parametrize(
    ("line", "column", "caret"),
    [
        ("COPPY a b", 1, "^"),
        ("COPY --chwon=1 a b", 6, "     ^"),
        ("COPY nothing.txt /", 6, "     ^"),
        ("RUN --mount=type=cahce,target=/c true", 5, "    ^"),
    ],
)
def test_a_mistake_is_shown_with_its_line_and_a_caret(
    tool: Tool, project: Project, line: str, column: int, caret: str
) -> None:
    done = tool("build", "-q", project({"Dockerfile": f"FROM busybox\n{line}\n"}))
    assert done.returncode == 1
    assert done.stderr.startswith(f"Dockerfile:2:{column}: ")
    assert done.stderr.endswith(f"\n  {line}\n  {caret}\n")


def test_a_docker_archive_comes_in(tool: Tool, tmp_path: Path) -> None:
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("f"), io.BytesIO(b""))
    diff_id = "sha256:" + hashlib.sha256(layer.getvalue()).hexdigest()
    config = {"architecture": "amd64", "os": "linux", "config": {"Cmd": ["go"]},
              "rootfs": {"type": "layers", "diff_ids": [diff_id]}}  # fmt: skip
    manifest = [{"Config": "c.json", "Layers": ["x/layer.tar"], "RepoTags": None}]
    files = {
        "manifest.json": json.dumps(manifest).encode(),
        "c.json": json.dumps(config).encode(),
        "x/layer.tar": layer.getvalue(),
    }
    with tarfile.open(tmp_path / "d.tar", "w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    assert tool("import", tmp_path / "d.tar", "docker:1").returncode == 0
    shown = json.loads(tool("inspect", "docker:1").stdout)
    assert shown["config"]["Cmd"] == ["go"]
    assert [layer["diff_id"] for layer in shown["layers"]] == [diff_id]
    (tmp_path / "bad").write_text("no archive")
    assert "cannot be read" in tool("import", tmp_path / "bad", "x:1").stderr


def test_an_unknown_image_names_what_there_is(tool: Tool) -> None:
    done = tool("inspect", "nothing:1")
    assert done.returncode == 1
    assert "The store has no image nothing:1." in done.stderr
    assert "busybox" in done.stderr


def test_later_work_does_not_appear(tool: Tool) -> None:
    assert tool("frobnicate").returncode == 2
    shown = tool("--help").stdout
    for command in ("build", "pull", "push", "inspect", "import", "base", "images", "tag", "rmi"):
        assert command in shown


def test_layers_are_compressed_with_zstd_by_choice(
    tool: Tool, project: Project, tmp_path: Path
) -> None:
    root = project({"Dockerfile": "FROM scratch\nCOPY f /f\n", "f": "packed by zstd"})
    done = tool("build", "-q", "--compression", "zstd", "--output", f"oci:{tmp_path}/z", root)
    assert done.returncode == 0, done.stderr
    shown = subprocess.run(
        ["skopeo", "inspect", "--raw", f"oci:{tmp_path}/z"], capture_output=True, check=True
    )
    (layer,) = json.loads(shown.stdout)["layers"]
    assert layer["mediaType"].endswith("tar+zstd")
    assert tool("import", tmp_path / "z", "z:1").stdout == done.stdout
