"""The options of ``python -m builders``: docker build's names wherever it has one."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from runtime.spec import Network

_UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
_FIRST_ID = 0x6000_0000  # far above the ranges that the service gives to projects


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """Exits with code 2 and the usage for what is no command line of ours."""
    parser = argparse.ArgumentParser(
        prog="python -m builders", description="Build and move OCI images."
    )
    home = Path(os.environ.get("GANTRY_HOME", "/var/lib/gantry"))
    parser.add_argument("--store", type=Path, default=home / "store", help="folder of the images")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _build(commands.add_parser("build", help="build an image from a Dockerfile"))
    for name, text in (
        ("pull", "fetch an image into the store"),
        ("push", "send an image to its registry"),
        ("inspect", "print an image's config as JSON"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("name")
        _mirrors(command)
    command = commands.add_parser("images", help="list the names in the store")
    command.add_argument("--json", action="store_true", help="for programs")
    command = commands.add_parser("tag", help="give an image one more name")
    command.add_argument("name")
    command.add_argument("new", metavar="NEW")
    command = commands.add_parser("rmi", help="forget names; prune removes what has none")
    command.add_argument("names", nargs="+", metavar="NAME")
    command = commands.add_parser("import", help="read an OCI layout or a docker archive")
    command.add_argument("path", type=Path)
    command.add_argument("name")
    _base(commands.add_parser("base", help="make a base image from the system's package mirror"))
    _prune(commands.add_parser("prune", help="remove what was not used for long, or is too much"))
    return parser.parse_args(arguments)


def _build(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("context", metavar="CONTEXT", help="a folder, or REPO#REF[:SUBDIR] for a commit")
    add("-f", "--file", type=Path, default=None, metavar="PATH", help="Dockerfile, from here or"
        " inside the context")  # fmt: skip
    add("-t", "--tag", action="append", default=[], metavar="NAME")
    add("--build-arg", action="append", default=[], metavar="KEY=VALUE")
    add("--label", action="append", default=[], metavar="KEY=VALUE")
    add("--secret", action="append", default=[], metavar="id=ID,src=FILE")
    add(
        "--platform",
        default="",
        metavar="OS/ARCH",
        help="of the image; RUN of others needs qemu-user-static",
    )
    add("--ssh", action="append", default=[], metavar="default|ID=SOCKET_OR_KEY")
    add("--target", default=None, metavar="STAGE")
    add("--no-cache", action="store_true")
    add("--pull", action="store_true", help="ask registries for newer bases than the store has")
    add("--cache-from", default="", metavar="NAME", help="a repository with the steps of others")
    add("--cache-to", default="", metavar="NAME", help="let others have the steps of this build")
    add("-o", "--output", default="", metavar="oci:FOLDER", help="an OCI layout; or docker:FILE,"
        " or as docker has it type=oci|docker,dest=FILE")  # fmt: skip
    add("--compression", default="gzip", choices=["gzip", "zstd"], help="of new layers")
    add("--push", action="store_true", help="push every -t NAME")
    add("--network", type=Network, default=Network.EGRESS, choices=[Network.NONE, Network.EGRESS])
    add("--memory", type=size, default=None, metavar="SIZE")
    add("--cpus", type=float, default=None)
    add("--pids", type=int, default=1024)
    add("--timeout", type=float, default=3600.0, metavar="SECONDS", help="of one step")
    add("--silence", type=float, default=1200.0, metavar="SECONDS", help="without output")
    add("--disk", type=size, default=10 << 30, metavar="SIZE", help="that one step writes")
    add("--inodes", type=int, default=1_000_000, help="files that one step makes")
    add("--output-limit", type=size, default=1 << 30, metavar="SIZE", help="of one step's log")
    add("--egress-allow", action="append", default=[], metavar="HOST[:PORT]")
    add("--extra-ca", type=Path, default=None, metavar="FILE", help="for RUN steps only")
    add("--id-base", type=int, default=_FIRST_ID, help="first host id of the sandboxes")
    add("--iidfile", type=Path, default=None, metavar="FILE")
    add("-q", "--quiet", action="store_true")
    _mirrors(command)


def _base(command: argparse.ArgumentParser) -> None:
    command.add_argument("name", nargs="?", default="", help="none lists the recipes")
    command.add_argument("--again", action="store_true", help="make it anew, for newer packages")


def _prune(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--older-than", type=seconds, default=None, metavar="TIME", help="e.g. 30d or 12h")
    add("--max-size", type=size, default=None, metavar="SIZE", help="what may stay, e.g. 20g")
    add("--keep", action="append", default=[], metavar="DIGEST", help="of an image or manifest")
    add("--json", action="store_true", help="print what was removed as JSON")


def _mirrors(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--registry-mirror",
        action="append",
        default=[],
        metavar="REGISTRY=HOST:PORT",
        help="e.g. docker.io=127.0.0.1:5000",
    )
    file = os.environ.get("GANTRY_REGISTRIES")
    command.add_argument(
        "--registries",
        type=Path,
        default=Path(file) if file else None,
        metavar="FILE",
        help="passwords and mirrors of registries, as docker's config.json or docs/settings.md",
    )


def seconds(text: str) -> float:
    """Seconds of ``30d``, ``12h``, ``5m`` or a plain number."""
    unit = text[-1:] if text[-1:] in "smhd" else ""
    return float(text.removesuffix(unit)) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}[unit]


def size(text: str) -> int:
    """Bytes of ``64m``, ``1g`` or a plain number."""
    lowered = text.lower()
    unit = lowered[-1:] if lowered[-1:] in "bkmg" else ""
    return int(float(lowered.removesuffix(unit)) * _UNITS[unit])
