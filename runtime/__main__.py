"""``python -m runtime run|exec|cp|pause|resume|list|drop|reap|check``: sandboxes, no server."""

from __future__ import annotations

import argparse
import base64
import json
import math
import os
import re
import secrets
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

from runtime import copying, host, hostroot, kept, use
from runtime.errors import SandboxError, SpecError
from runtime.network import open_network
from runtime.reap import reap
from runtime.sandbox import Piece, Stream, numbered
from runtime.snapshots import LowerDir, RootFs, mount_rootfs
from runtime.spec import (
    ID_RANGE_SIZE,
    IDS_END,
    IdRange,
    Limits,
    Mount,
    Network,
    Outcome,
    Receipt,
    SandboxSpec,
    User,
)
from runtime.state import StateDirectory

OURS = 125  # the exit code of docker, podman and runc for "the sandbox itself failed"
SIGPIPE = 128 + signal.SIGPIPE
DEFAULT_IDS = 2_000_000_000  # above what distributions and systemd-nspawn hand out
NETWORKS = [kind.value for kind in Network if kind is not Network.PRIVATE]
UNITS = {"": 1, "b": 1, "k": 1024, "m": 1024**2, "g": 1024**3}


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code: that of the command; 137 when it was killed; 125 when it could not be run."""
    arguments = _parser().parse_args(argv)
    try:
        return int(arguments.function(arguments))
    except SandboxError as error:
        print(f"runtime: {error}", file=sys.stderr)
        return OURS
    except BrokenPipeError:  # whoever read our output has gone, as in `... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return SIGPIPE
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        sudo = isinstance(error, PermissionError) and os.geteuid() != 0
        hint = "Run it with sudo" if sudo else "`python -m runtime check` may tell why"
        print(f"runtime: {place}{error.strerror or error}. {hint}.", file=sys.stderr)
        return OURS


class Parser(argparse.ArgumentParser):
    """What cannot be read is told by 125, too: 2 may be the program's own."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(OURS, f"{self.prog}: {message}. `{self.prog} --help` tells more.\n")


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m runtime", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    common = Parser(add_help=False)
    common.add_argument("--state", type=Path, default=default_state(), metavar="DIR")
    _add_run(commands.add_parser("run", parents=[common], help="run a command in a sandbox"))
    for name, function, text in (
        ("list", _list, "show the sandboxes on record"),
        ("reap", _reap, "remove what dead owners left"),
        ("check", _check, "say what this machine lacks for sandboxes"),
    ):
        command = commands.add_parser(name, parents=[common], help=text)
        command.set_defaults(function=function)
        command.add_argument("--json", action="store_true", help="for programs")
    for name, verb, text in (
        ("pause", use.pause, "stop a sandbox where it is"),
        ("resume", use.resume, "let a paused sandbox go on"),
    ):
        command = commands.add_parser(name, parents=[common], help=text)
        command.add_argument("id", metavar="ID")
        command.set_defaults(function=_on_running, verb=verb)
    drop = commands.add_parser("drop", parents=[common], help="remove a kept failed sandbox")
    drop.add_argument("id", metavar="ID")
    drop.set_defaults(function=_drop)
    _add_exec(commands.add_parser("exec", parents=[common], help="run one more command in one"))
    parser_of_cp = commands.add_parser("cp", parents=[common], help="copy files in or out of one")
    parser_of_cp.add_argument("--with-secrets", action="store_true", help="although it holds some")
    parser_of_cp.add_argument("source", metavar="ID:PATH|FILE")
    parser_of_cp.add_argument("target", metavar="FILE|ID:PATH")
    parser_of_cp.set_defaults(function=_copy)
    return parser


def _copy(arguments: argparse.Namespace) -> int:
    state = _state(arguments.state)
    cancel = _cancel_by_signal()
    out, inside = arguments.source.partition(":"), arguments.target.partition(":")
    if bool(out[1]) is bool(inside[1]):
        raise SpecError(
            "One of the two is a file of here, one is in a sandbox.", hint="Write that as ID:PATH."
        )
    if out[1]:
        copying.copy_out(
            state, out[0], out[2], Path(arguments.target),
            with_secrets=arguments.with_secrets, cancel=cancel,
        )  # fmt: skip
    else:
        copying.copy_in(state, inside[0], Path(arguments.source), inside[2], cancel=cancel)
    return 0


def _on_running(arguments: argparse.Namespace) -> int:
    arguments.verb(_state(arguments.state), arguments.id)
    return 0


def _drop(arguments: argparse.Namespace) -> int:
    state = _existing_state(arguments.state)
    if state is None:
        raise SpecError(
            f"No failed sandbox called {arguments.id} is kept.",
            hint="`python -m runtime list` shows those that are.",
        )
    kept.drop(state, arguments.id)
    return 0


def _add_exec(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(function=_exec)
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


def _exec(arguments: argparse.Namespace) -> int:
    """In one that runs, else in one that is kept."""
    _check_receipt(arguments.receipt)
    state = _state(arguments.state)
    how: dict[str, Any] = {"with_secrets": arguments.with_secrets}
    execute: Callable[..., Receipt] = use.execute
    if kept.is_kept(state, arguments.id):
        execute, how = kept.execute, {}
    receipt = execute(
        state,
        arguments.id,
        arguments.command,
        env=_environment(arguments.env),
        cwd=arguments.workdir,
        user=arguments.user,
        timeout=arguments.timeout,
        output=arguments.output,
        on_output=_output(arguments),
        cancel=_cancel_by_signal(),
        **how,
    )
    _tell(receipt, arguments)
    return receipt.exit_code


def _cancel_by_signal() -> threading.Event:
    cancel = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: cancel.set())
    return cancel


def default_state() -> Path:
    return Path(os.environ.get("GANTRY_HOME", "/var/lib/gantry")) / "sandboxes"


def _add_run(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(function=_run)
    parser.add_argument("--memory", type=parse_size, metavar="64m", help="swap included")
    parser.add_argument("--cpus", type=float, metavar="0.5")
    parser.add_argument("--pids", type=int, metavar="32")
    parser.add_argument("--timeout", type=float, metavar="10", help="seconds of wall time")
    parser.add_argument("--output", type=parse_size, metavar="64m", help="bytes of both streams")
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
    parser.add_argument("--shm", type=parse_size, default=Limits().shm, metavar="64m")
    parser.add_argument("--network", choices=NETWORKS, default="none")
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


def parse_size(text: str) -> int:
    """``64m`` as docker reads it: a number and b, k, m or g (powers of 1024)."""
    found = re.fullmatch(r"(\d+)([bkmg]?)", text.lower().removesuffix("ib"))
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is no size such as 64m or 1g")
    return int(found[1]) * UNITS[found[2]]


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


def _run(arguments: argparse.Namespace) -> int:
    if missing := host.check():
        raise SandboxError(missing[0], hint="`python -m runtime check` tells all that is missing.")
    if arguments.keep and arguments.rootfs is None:
        raise SpecError("Only a sandbox with a root of its own can be kept.", hint="Give --rootfs.")
    _check_receipt(arguments.receipt)
    state = _state(arguments.state)
    cancel = _cancel_by_signal()
    ids = _id_range(arguments.ids)
    kind = Network(arguments.network)
    with ExitStack() as stack:
        rootfs, mounts = stack.enter_context(_rootfs(arguments, state, ids))
        network = stack.enter_context(open_network(kind, state=state, allow=arguments.allow))
        spec = SandboxSpec(
            id=f"run-{secrets.token_hex(4)}" if arguments.name is None else arguments.name,
            rootfs=rootfs.path,
            args=tuple(arguments.command),
            ids=ids,
            env=_environment(arguments.env),
            cwd=arguments.workdir,
            user=arguments.user,
            hostname=arguments.hostname,
            limits=Limits(
                memory=arguments.memory,
                cpus=arguments.cpus,
                pids=arguments.pids,
                timeout=arguments.timeout,
                output=arguments.output,
                silence=arguments.silence,
                disk=arguments.disk,
                inodes=arguments.inodes,
                io_weight=arguments.io_weight,
                io_read=arguments.io_read,
                io_write=arguments.io_write,
                shm=arguments.shm,
            ),
            mounts=mounts,
            network=kind,
            netns=network.netns if network else None,
            upper=rootfs.upper,
            read_only=arguments.read_only,
        )
        receipt = kept.run_and_keep(
            spec, rootfs, arguments.keep,
            state=state, allow=arguments.allow, on_output=_output(arguments), cancel=cancel,
        )  # fmt: skip
    _tell(receipt, arguments)
    if arguments.keep and not receipt.ok and not receipt.kept:
        print("runtime: what it left could not be kept, or it was cancelled", file=sys.stderr)
    return receipt.exit_code


def _id_range(base: int) -> IdRange:
    try:
        return IdRange(base)
    except ValueError as error:
        raise SpecError(
            f"{error}.".capitalize(), hint="Leave --ids out, or name the first of 65536 free ones."
        ) from error


@contextmanager
def _rootfs(
    arguments: argparse.Namespace, state: StateDirectory, ids: IdRange
) -> Iterator[tuple[RootFs, tuple[Mount, ...]]]:
    """A writable view of the asked directory; what is written is thrown away."""
    with state.scratch() as home:
        mounts: tuple[Mount, ...] = ()
        lower, base = arguments.rootfs, arguments.rootfs_base
        if lower is None:
            lower, base = home / "hostroot", 0
            lower.mkdir()
            mounts = hostroot.make(lower)
        elif not lower.is_dir():
            raise SpecError(
                f"The root file system {lower} is no directory.", hint="Unpack or mount it first."
            )
        elif home.resolve().is_relative_to(lower.resolve()):
            raise SpecError(
                f"The root file system {lower} holds {state.root}, where sandboxes are made.",
                hint="Name a directory outside it with --state.",
            )
        if not 0 <= base < IDS_END - ID_RANGE_SIZE:
            raise SpecError(
                f"The owner of a root file system cannot be {base}.",
                hint="Give --rootfs-base the number that `stat -c %u` tells of it.",
            )
        layers = [LowerDir(lower.absolute(), base)]
        scratch = home / "layers"
        scratch.mkdir()
        with mount_rootfs(layers, ids=ids, scratch=scratch, target=home / "root") as rootfs:
            yield rootfs, mounts


def _environment(pairs: Sequence[str]) -> dict[str, str]:
    found = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if equals:
            found[name] = value
        elif name in os.environ:  # as docker has it: the caller's own, or none
            found[name] = os.environ[name]
    return found


def _print(stream: Stream, data: bytes) -> None:
    out = sys.stdout.buffer if stream is Stream.STDOUT else sys.stderr.buffer
    out.write(data)
    out.flush()


def _output(arguments: argparse.Namespace) -> Callable[[Stream, bytes], None]:
    return numbered(_print_event) if arguments.events else _print


def _print_event(piece: Piece) -> None:
    words = {
        "seq": piece.number,
        "at": round(piece.at, 3),
        "stream": piece.stream.name.lower(),
        "data": base64.b64encode(piece.data).decode(),
    }
    print(json.dumps(words), flush=True)


def _tell(receipt: Receipt, arguments: argparse.Namespace) -> None:
    file: Path | None = arguments.receipt
    if receipt.outcome is not Outcome.EXITED:
        print(f"killed: {receipt.detail}", file=sys.stderr)
    elif receipt.detail:
        print(f"runtime: {receipt.detail}", file=sys.stderr)
    if receipt.kept:
        print(
            f"runtime: kept for {receipt.kept_until - time.time():.0f} s; look at what it left:"
            f" python -m runtime exec {receipt.kept} -- sh -c 'ls -la'",
            file=sys.stderr,
        )
    if arguments.events:
        print(json.dumps({"receipt": asdict(receipt)}), flush=True)
    if file is not None:
        file.write_text(json.dumps(asdict(receipt), indent=2) + "\n")


def _list(arguments: argparse.Namespace) -> int:
    state = _existing_state(arguments.state)
    found = use.listed(state) if state else []
    left = kept.listed(state) if state else []
    if arguments.json:
        rows = [asdict(each) for each in found]
        print(json.dumps(rows + [{"state": "kept"} | asdict(each) for each in left], indent=2))
        return 0
    for each in found:
        print(
            f"{each.id}\t{each.state}\towner {each.owner}\t{each.processes} processes"
            f"\t{_shown(each.command)}"
        )
    for old in left:
        print(
            f"{old.id}\tkept for {old.until - time.time():.0f} s\t{old.outcome}"
            f"\t{_shown(old.command)}"
        )
    return 0


def _shown(command: str) -> str:
    """A project's own words, on an administrator's terminal: no escape sequence, one line."""
    return "".join(c if c.isprintable() else "?" for c in command)


def _state(root: Path) -> StateDirectory:
    try:
        return StateDirectory(root)
    except PermissionError:
        raise  # told by main, with what to do
    except OSError as error:
        raise SpecError(
            f"The state directory {root} cannot be made: {error.strerror}.",
            hint="Name another with --state.",
        ) from error


def _check_receipt(file: Path | None) -> None:
    """Before the program runs, perhaps for an hour."""
    if file is not None and (file.is_dir() or not os.access(file.absolute().parent, os.W_OK)):
        raise SpecError(
            f"The receipt cannot be written to {file}.",
            hint="Name a file in a folder that is there.",
        )


def _existing_state(root: Path) -> StateDirectory | None:
    """The state directory, None where none has ever been made: looking must not make one."""
    if root.is_dir():
        return StateDirectory(root)
    if root.exists():
        raise SpecError(f"The state {root} is no directory.", hint="Name one with --state.")
    return None


def _reap(arguments: argparse.Namespace) -> int:
    state = _existing_state(arguments.state)
    done = reap(state) if state else []
    for sentence in [json.dumps(done, indent=2)] if arguments.json else done:
        print(sentence)
    return 0


def _check(arguments: argparse.Namespace) -> int:
    missing, notes = host.check(), host.notes()
    version = "v2" if host.cgroup_version() is host.CgroupVersion.V2 else "v1"
    if arguments.json:
        found = {"ready": not missing, "missing": missing, "notes": notes, "cgroups": version}
        if not missing:
            found["runtime"] = str(host.oci_runtime().path)
        print(json.dumps(found, indent=2))
        return 1 if missing else 0
    for sentence in (*missing, *notes):
        print(sentence)
    if missing:
        return 1
    runtime = host.oci_runtime()
    print(
        f"Ready: sandboxes run by {runtime.path} with cgroups {version}, {ID_RANGE_SIZE} ids each."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
