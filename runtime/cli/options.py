"""The options of ``python -m runtime``, and which function of ``commands`` is for each."""

from __future__ import annotations

import argparse
import math
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from runtime import use
from runtime.cli import commands as verbs
from runtime.spec import NO_PARENT, Limits, Network, User
from runtime.validation import ID_FORM

OURS = 125  # the exit code of docker, podman and runc for "the sandbox itself failed"
DEFAULT_IDS = 2_000_000_000  # above what distributions and systemd-nspawn hand out
UNITS = {"": 1, "b": 1, "k": 1024, "m": 1024**2, "g": 1024**3}


class Parser(argparse.ArgumentParser):
    """What cannot be read is told by 125, too: 2 may be the program's own."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(OURS, f"{self.prog}: {message}. `{self.prog} --help` tells more.\n")


def make_parser() -> argparse.ArgumentParser:
    """What it parses has ``function``, which takes all of it and returns the exit code."""
    parser = Parser(prog="python -m runtime", description="Sandboxes, with no server.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    common = Parser(add_help=False)
    common.add_argument("--state", type=Path, default=default_state(), metavar="DIR")
    _add_run(commands.add_parser("run", parents=[common], help="run a command in a sandbox"))
    for name, function, text in (
        ("list", verbs.show_list, "show the sandboxes on record"),
        ("reap", verbs.reap_dead, "remove what dead owners left"),
        ("check", verbs.check, "say what this machine lacks for sandboxes"),
    ):
        command = commands.add_parser(name, parents=[common], help=text)
        command.set_defaults(function=function)
        command.add_argument("--json", action="store_true", help="for programs")
    for name, verb, text in (
        ("pause", use.pause, "stop a sandbox where it is"),
        ("resume", use.resume, "let a paused sandbox go on"),
        ("kill", use.kill, "end a sandbox at once, with everything in it"),
    ):
        command = commands.add_parser(name, parents=[common], help=text)
        command.add_argument("id", metavar="ID")
        command.set_defaults(function=verbs.on_running, verb=verb)
    drop = commands.add_parser("drop", parents=[common], help="remove a kept failed sandbox")
    drop.add_argument("id", metavar="ID")
    drop.set_defaults(function=verbs.drop)
    _add_exec(commands.add_parser("exec", parents=[common], help="run one more command in one"))
    parser_of_cp = commands.add_parser("cp", parents=[common], help="copy files in or out of one")
    parser_of_cp.add_argument("--with-secrets", action="store_true", help="although it holds some")
    parser_of_cp.add_argument("source", metavar="ID:PATH|FILE")
    parser_of_cp.add_argument("target", metavar="FILE|ID:PATH")
    parser_of_cp.set_defaults(function=verbs.copy)
    return parser


def _add_run(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(function=verbs.run)
    parser.add_argument("--memory", type=parse_size, metavar="64m", help="swap included")
    parser.add_argument("--cpus", type=float, metavar="0.5")
    parser.add_argument("--pids", type=int, metavar="32")
    parser.add_argument("--timeout", type=float, metavar="10", help="seconds of wall time")
    parser.add_argument("--output", type=parse_size, metavar="64m", help="bytes of both streams")
    parser.add_argument(
        "--stop-timeout", type=parse_seconds, default=Limits().grace, metavar="SECONDS",
        help="how long a program that handles SIGTERM has to end, when it is cancelled or its time"
        " is over, before everything is killed (default: %(default)g)",
    )  # fmt: skip
    parser.add_argument("--silence", type=float, metavar="60", help="seconds without output")
    parser.add_argument("--disk", type=parse_size, metavar="1g", help="bytes it may write")
    parser.add_argument("--io-weight", type=int, metavar="100", help="share of a busy disk, 1-1000")
    parser.add_argument("--io-read", type=parse_size, metavar="10m", help="a second, from a disk")
    parser.add_argument("--io-write", type=parse_size, metavar="10m", help="a second, to a disk")
    parser.add_argument("--inodes", type=int, metavar="10000", help="files it may make")
    parser.add_argument(
        "--keep", type=parse_seconds, default=0, metavar="SECONDS",
        help="how long `exec` can look at what it left, should it fail; needs --rootfs",
    )  # fmt: skip
    parser.add_argument(
        "--cgroup-parent", default="", metavar="NAME",
        help="a cgroup, made for the first and gone with the last, that sandboxes share",
    )  # fmt: skip
    parser.add_argument(
        "--budget", type=parse_budget, default=NO_PARENT.limits, metavar="memory=1g,cpus=2,pids=99",
        help="what all below --cgroup-parent have together; give each of them the same",
    )  # fmt: skip
    parser.add_argument("--shm", type=parse_size, default=Limits().shm, metavar="64m")
    parser.add_argument(
        "--network", type=parse_network, default=Joined(Network.NONE), metavar="KIND",
        help="none (the default), egress, host, or private:NAME: those that run with the same NAME"
        " find one another by --name and --network-alias; private:NAME,egress has a way out",
    )  # fmt: skip
    parser.add_argument(
        "--network-alias", action="append", default=[], metavar="NAME",
        help="one more name in its private network",
    )  # fmt: skip
    parser.add_argument(
        "--allow",
        action="append",
        default=os.environ.get("GANTRY_EGRESS_ALLOW", "").replace(",", " ").split(),
        metavar="HOST[:PORT]",
        help="what egress reaches besides the public internet (GANTRY_EGRESS_ALLOW)",
    )
    parser.add_argument(
        "--rootfs", type=Path, metavar="DIR", help="default: the host's /usr and nothing else of it"
    )
    parser.add_argument(
        "--rootfs-base", type=int, default=0, metavar="UID", help="owner of DIR's root"
    )
    parser.add_argument(
        "--ids", type=int, default=DEFAULT_IDS, metavar="UID", help="host id of root"
    )
    parser.add_argument("--user", type=parse_user, default=User(), metavar="UID[:GID]")
    parser.add_argument("--workdir", default="/", metavar="DIR")
    parser.add_argument("--env", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--name", help="the sandbox's id in `list`; default: made up")
    parser.add_argument("--hostname", default="sandbox")
    _add_events(parser)
    parser.add_argument("--read-only", action="store_true", help="no writing outside /tmp and /dev")
    parser.add_argument("--receipt", type=Path, metavar="FILE", help="write the receipt as JSON")
    parser.add_argument("command", nargs="+", metavar="-- CMD")


def _add_exec(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(function=verbs.execute)
    parser.add_argument("--timeout", type=float, metavar="10", help="seconds of wall time")
    parser.add_argument("--output", type=parse_size, metavar="64m", help="bytes of both streams")
    parser.add_argument("--user", type=parse_user, metavar="UID[:GID]", help="default: its own")
    parser.add_argument("--workdir", metavar="DIR")
    parser.add_argument("--env", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--with-secrets", action="store_true", help="although it holds secrets")
    _add_events(parser)
    parser.add_argument("--receipt", type=Path, metavar="FILE", help="write the receipt as JSON")
    parser.add_argument("id", metavar="ID")
    parser.add_argument("command", nargs="+", metavar="-- CMD")


def _add_events(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--events", action="store_true",
        help="write both streams to stdout as numbered lines of JSON, data in base64, then the"
        " receipt",
    )  # fmt: skip


def default_state() -> Path:
    return Path(os.environ.get("GANTRY_HOME", "/var/lib/gantry")) / "sandboxes"


def parse_size(text: str) -> int:
    """``64m`` as docker reads it: a number and b, k, m or g (powers of 1024)."""
    found = re.fullmatch(r"(\d+)([bkmg]?)", text.lower().removesuffix("ib"))
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is no size such as 64m or 1g")
    return int(found[1]) * UNITS[found[2]]


@dataclass(frozen=True, slots=True)
class Joined:
    """``private`` names the network of kind PRIVATE, which may have a way out."""

    kind: Network
    private: str = ""
    with_egress: bool = False


def parse_network(text: str) -> Joined:
    """``none``, ``egress``, ``host``, ``private:NAME`` or ``private:NAME,egress``."""
    found = re.fullmatch(rf"private:({ID_FORM.pattern})(,egress)?", text)
    if found:
        return Joined(Network.PRIVATE, found[1], bool(found[2]))
    if text not in ("none", "egress", "host"):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no network: none, egress, host, private:NAME or private:NAME,egress"
        )
    return Joined(Network(text))


def parse_budget(text: str) -> Limits:
    """``memory=1g,cpus=2,pids=99``: any of them, once each."""
    pairs = dict(pair.partition("=")[::2] for pair in text.split(","))
    kinds: dict[str, Callable[[str], float]] = {"memory": parse_size, "cpus": float, "pids": int}
    try:
        if len(pairs) != len(text.split(",")):
            raise ValueError
        found: dict[str, Any] = {name: kinds[name](value) for name, value in pairs.items()}
    except (KeyError, ValueError):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no budget such as memory=1g,cpus=2,pids=99"
        ) from None
    return Limits(**found)


def parse_seconds(text: str) -> float:
    """A number of seconds that ends some time."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds such as 3600")
    return seconds


def parse_user(text: str) -> User:
    uid, _, gid = text.partition(":")
    if not uid.isdecimal() or not (gid or "0").isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not UID or UID:GID in numbers")
    return User(uid=int(uid), gid=int(gid or uid))
