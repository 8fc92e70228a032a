"""Failed sandboxes that are kept for a while, so that someone can look at what they left.

    root/kept/<id>/record.json   the spec without its secrets, how it ended, until when it stays
                   upper/        what it wrote
                   lock          held by whoever runs a program in it

The processes are dead, and with their first one its namespaces: a program that is run later
gets new ones of the same kinds, over the same layers, with the same limits, ids, user,
variables and mounts. Variables and files that were secret are withheld (but not what the
program itself wrote of them). Bind mounts are read-only; those whose source is gone, as of a
build's other stages, are left out, and so is a private network. At most MAXIMUM are kept; the
reaper removes those whose time is over.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any

from runtime import owner
from runtime.errors import SpecError
from runtime.network import open_network
from runtime.output import Stream
from runtime.removal import remove_path
from runtime.sandbox import run
from runtime.snapshots import LowerDir, RootFs, mount_rootfs
from runtime.snapshots.copy import copy_tree
from runtime.spec import (
    BindMount,
    IdRange,
    Limits,
    Mount,
    Network,
    Outcome,
    Receipt,
    SandboxSpec,
    TmpfsMount,
    User,
)
from runtime.state import UNFINISHED, StateDirectory
from runtime.validation import ID_FORM

MAXIMUM = 10
LONGEST = 24 * 3600.0  # seconds
RECORD, UPPER, LOCK = "record.json", "upper", "lock"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """One on record. ``until`` and ``since`` are seconds since the epoch."""

    id: str
    command: str
    outcome: str
    exit_code: int
    detail: str
    since: float
    until: float


def run_and_keep(
    spec: SandboxSpec,
    rootfs: RootFs,
    seconds: float,
    *,
    state: StateDirectory,
    allow: Sequence[str] = (),
    **how: Any,
) -> Receipt:
    """``runtime.sandbox.run``, and if the program fails, what it left stays for ``seconds``.

    ``rootfs`` is the spec's; after a failure its upper directory has moved away, and it can
    only be read. ``allow`` is what an EGRESS network of later programs may reach; ``how`` is for
    ``run``. The receipt's ``kept_until`` tells: it is 0 where ``seconds`` is, or keeping failed.
    Raises SpecError also for an id under which one is kept already.
    """
    if seconds > 0 and is_kept(state, spec.id):
        raise SpecError(
            f"A failed sandbox called {spec.id} is kept already.",
            hint=f"Choose another name, or: python -m runtime drop {spec.id}",
        )
    receipt = run(spec, state=state, **how)
    if seconds <= 0 or receipt.ok or receipt.outcome is Outcome.CANCELLED:
        return receipt
    until = time.time() + min(seconds, LONGEST)
    try:
        _keep(spec, rootfs, receipt, state, until, allow)
    except OSError:  # a full disk, say: how the program ended is worth more than what it left
        return receipt
    return replace(receipt, kept=spec.id, kept_until=until)


def _keep(
    spec: SandboxSpec,
    rootfs: RootFs,
    receipt: Receipt,
    state: StateDirectory,
    until: float,
    allow: Sequence[str],
) -> None:
    about = Kept(
        id=spec.id,
        command=" ".join(spec.args)[:200],
        outcome=receipt.outcome,
        exit_code=receipt.exit_code,
        detail=receipt.detail,
        since=time.time(),
        until=until,
    )
    new = state.kept_dir / f"{UNFINISHED}{owner.token()}-{secrets.token_hex(8)}"
    new.mkdir(mode=0o711)
    try:
        record = {
            "about": asdict(about),
            "spec": _as_json(spec),
            "allow": list(allow),
            "lowers": [[str(lower.path), lower.base] for lower in rootfs.lowers],
        }
        (new / RECORD).touch(mode=0o600)
        (new / RECORD).write_text(json.dumps(record))
        (new / LOCK).touch(mode=0o600)
        _move(rootfs.upper, new / UPPER)
        new.rename(state.kept_dir / spec.id)
    except BaseException:
        with suppress(OSError):
            remove_path(new)
        raise
    for old in sorted(listed(state), key=lambda each: each.since)[:-MAXIMUM]:
        with suppress(SpecError):  # somebody is in it
            drop(state, old.id)


def _move(upper: Path, target: Path) -> None:
    try:
        upper.rename(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        copy_tree(upper, target, shift=0)


def _as_json(spec: SandboxSpec) -> dict[str, Any]:
    """What a later program is given of ``spec``: nothing that was secret."""
    hidden = set(spec.secrets)
    return {
        "env": {name: value for name, value in spec.env.items() if name not in hidden},
        "cwd": spec.cwd,
        "user": asdict(spec.user),
        "hostname": spec.hostname,
        "ids": asdict(spec.ids),
        "limits": asdict(replace(spec.limits, timeout=None, silence=None)),
        "mounts": [_mount_as_json(each) for each in spec.mounts if each.target not in hidden],
        "network": spec.network.value,
        "read_only": spec.read_only,
        "no_new_privileges": spec.no_new_privileges,
    }


def _mount_as_json(mount: Mount) -> dict[str, Any]:
    words = asdict(mount)
    return words | {"source": str(mount.source)} if isinstance(mount, BindMount) else words


def _mounts(found: Sequence[dict[str, Any]]) -> tuple[Mount, ...]:
    mounts: list[Mount] = []
    for words in found:
        if "source" not in words:
            mounts.append(TmpfsMount(**words))
        elif Path(words["source"]).exists():
            # To be read only: a build's caches have other users, and locks that nobody holds now.
            mounts.append(BindMount(source=Path(words["source"]), target=words["target"]))
    return tuple(mounts)


def listed(state: StateDirectory) -> list[Kept]:
    """Every one on record, in the order of their ids."""
    found = []
    for path in sorted(state.kept_dir.iterdir()):
        with suppress(OSError, ValueError, TypeError, KeyError):
            if not path.name.startswith(UNFINISHED):
                found.append(Kept(**json.loads((path / RECORD).read_text())["about"]))
    return found


def is_kept(state: StateDirectory, id: str) -> bool:
    """Whether a failed sandbox called ``id`` is kept."""
    return any(each.id == id for each in listed(state))


@contextmanager
def _held(state: StateDirectory, id: str) -> Iterator[Path]:
    """The directory of one, for us alone. Raises SpecError where it is not there or in use."""
    if not ID_FORM.fullmatch(id) or not is_kept(state, id):
        raise _unknown(id)
    path = state.kept_dir / id
    try:
        lock = (path / LOCK).open("r+")
    except FileNotFoundError:  # dropped since we looked
        raise _unknown(id) from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SpecError(
                f"Somebody is running a program in the kept sandbox {id}.", hint="Try again later."
            ) from None
        if not _is_at(path / LOCK, lock):  # dropped between its opening and our lock
            raise _unknown(id)
        yield path


def _unknown(id: str) -> SpecError:
    return SpecError(
        f"No failed sandbox called {id} is kept.", hint="Its time may be over: run the job again."
    )


def _is_at(path: Path, file: IO[str]) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    return False


def execute(
    state: StateDirectory,
    id: str,
    args: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
    user: User | None = None,
    timeout: float | None = None,
    output: int | None = None,
    on_output: Callable[[Stream, bytes], None] | None = None,
    cancel: threading.Event | None = None,
) -> Receipt:
    """Run a program over what a kept sandbox left; what it writes is there for the next one.

    As ``runtime.use.execute`` does in one that runs. Raises SpecError, HostError, RuntimeFailed.
    """
    with ExitStack() as stack:
        path = stack.enter_context(_held(state, id))
        record = json.loads((path / RECORD).read_text())
        lowers = [LowerDir(Path(at), base) for at, base in record["lowers"]]
        if not all(lower.path.is_dir() for lower in lowers):
            raise SpecError(
                f"The layers below the kept sandbox {id} have been pruned.", hint="Run it again."
            )
        spec = _spec(id, record["spec"], args, path / UPPER)
        spec = replace(
            spec,
            env={**spec.env, **(env or {})},
            cwd=cwd or spec.cwd,
            user=user or spec.user,
            limits=replace(
                spec.limits,
                timeout=timeout,
                output=spec.limits.output if output is None else output,
            ),
        )
        home = stack.enter_context(state.scratch())
        (home / "layers").mkdir()
        rootfs = stack.enter_context(
            mount_rootfs(
                lowers, ids=spec.ids, scratch=home / "layers", target=home / "root",
                mountpoints=_points(spec.mounts), upper=path / UPPER,
            )
        )  # fmt: skip
        network = stack.enter_context(
            open_network(spec.network, state=state, allow=record["allow"])
        )
        spec = replace(spec, rootfs=rootfs.path, netns=network.netns if network else None)
        return run(spec, state=state, on_output=on_output, cancel=cancel)


def _spec(id: str, words: dict[str, Any], args: Sequence[str], upper: Path) -> SandboxSpec:
    network = Network(words["network"])
    return SandboxSpec(
        id=f"{id[:50]}-{secrets.token_hex(4)}",
        rootfs=upper,  # until it is mounted
        args=tuple(args),
        ids=IdRange(**words["ids"]),
        env=words["env"],
        cwd=words["cwd"],
        user=User(**(words["user"] | {"groups": tuple(words["user"]["groups"])})),
        hostname=words["hostname"],
        limits=Limits(**words["limits"]),
        mounts=_mounts(words["mounts"]),
        network=network if network is Network.EGRESS else Network.NONE,
        upper=upper,
        read_only=words["read_only"],
        no_new_privileges=words["no_new_privileges"],
    )


def _points(mounts: Sequence[Mount]) -> list[str]:
    """Where mounts need a folder (with a slash) or a file: they leave no stub in the upper."""
    return [
        mount.target + ("/" if isinstance(mount, TmpfsMount) or mount.source.is_dir() else "")
        for mount in mounts
    ]


def drop(state: StateDirectory, id: str) -> None:
    """Remove a kept sandbox. Raises SpecError where there is none, or somebody is in it."""
    with _held(state, id) as path:
        aside = state.kept_dir / f"{UNFINISHED}{owner.token()}-{secrets.token_hex(8)}"
        path.rename(aside)
        remove_path(aside)


def prune(state: StateDirectory) -> list[str]:
    """Remove those whose time is over, and what a dead process was about to keep or remove."""
    done = []
    for each in listed(state):
        if each.until <= time.time():
            with suppress(SpecError):  # somebody is in it: next time
                drop(state, each.id)
                done.append(f"removed the kept sandbox {each.id}")
    for path in state.kept_dir.glob(f"{UNFINISHED}*"):
        if not owner.is_alive(path.name.removeprefix(UNFINISHED).partition("-")[0]):
            with suppress(OSError):
                remove_path(path)
                done.append(f"removed the unfinished directory {path.name}")
    return done
