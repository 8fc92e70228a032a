"""RUN: one command in a sandbox on top of the layers so far; what it wrote is the new layer."""

from __future__ import annotations

import itertools
import re
import secrets
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from builders.cache import step_key
from builders.dockerfile.instructions import Run
from builders.dockerfile.mounts import RunMount, parse_mount
from builders.errors import BuildCancelled, BuildError, StepFailed
from builders.plan import PROXY_ARGS
from builders.steps.accounts import Account, find_account
from builders.steps.bench import Bench, Done, layer_of
from builders.steps.mounts import MountDesk, is_file, mount_identity
from builders.steps.state import DEFAULT_PATH, StageState
from runtime.kept import run_and_keep
from runtime.paths import open_root
from runtime.sandbox import Stream
from runtime.snapshots import RootFs
from runtime.spec import BindMount, Mount, Network, Outcome, Receipt, SandboxSpec

CA_PATH = "/run/gantry/ca-certificates.crt"
CA_VARIABLES = (
    "SSL_CERT_FILE",
    "PIP_CERT",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "NODE_EXTRA_CA_CERTS",
    "GIT_SSL_CAINFO",
)
_HEREDOC_ONLY = re.compile(r"^\d*<<-?\s*(['\"]?)[^\s<'\"]+\1\s*$")
_TAIL_LINES = 20
_TAIL_BYTES = 16 * 1024


def run(step: Run, state: StageState, bench: Bench) -> Done:
    expander = bench.expander(step, state)
    mounts = _with_sockets([parse_mount(value, step.at, expander.word) for value in step.mounts])
    words, script = command_words(step, state)
    env = {key: value for key, value in state.env.items() if key not in PROXY_ARGS}
    key = step_key(
        "run",
        state.chain,
        words,
        script,
        sorted(env.items()),
        state.config.user,
        state.workdir,
        step.network if bench.may_fetch else "none",
        bench.platform,
        [mount_identity(mount, step, bench) for mount in mounts],
    )

    order = _Order(step, state, bench, words, script, mounts, key)
    targets = [target for mount in mounts if (target := _stub(mount, step, state, bench))]
    if bench.extra_ca is not None:
        targets.append(CA_PATH)
    made = layer_of(bench, state.layers, key, order.act, mountpoints=targets)
    return Done(state.with_layer(made.layer), made.layer, made.cached, made.receipt)


def command_words(step: Run, state: StageState) -> tuple[tuple[str, ...], str | None]:
    """The argument vector, and the text of a script that it runs (a heredoc with ``#!``)."""
    if not step.command.shell:
        return step.command.words, None
    line = step.command.words[0]
    if not step.heredocs:
        return (*state.shell, line), None
    if len(step.heredocs) == 1 and _HEREDOC_ONLY.match(line):
        body = step.heredocs[0].content
        if body.startswith("#!"):
            return (f"/dev/pipes/{step.heredocs[0].name}",), body
        return (*state.shell, body), None
    # Anything else is the shell's to understand: give it the text as it was written.
    whole = line + "".join(f"\n{content}{name}" for name, content in step.raw_heredocs)
    return (*state.shell, whole), None


def _with_sockets(mounts: Sequence[RunMount]) -> tuple[RunMount, ...]:
    """SSH mounts without a target get BuildKit's."""
    numbers = itertools.count()
    return tuple(
        replace(mount, target=f"/run/buildkit/ssh_agent.{next(numbers)}")
        if mount.kind == "ssh" and not mount.target
        else mount
        for mount in mounts
    )


def _stub(mount: RunMount, step: Run, state: StageState, bench: Bench) -> str:
    """The place a mount covers; a folder's ends with a slash."""
    if mount.kind == "ssh":
        return MountDesk.target(mount, state.workdir) if mount.agent in bench.agents else ""
    if mount.kind == "secret":
        given = mount.secret_name in bench.secrets
        return MountDesk.secret_target(mount, state.workdir) if given else ""
    slash = "" if mount.kind == "bind" and is_file(mount, step, bench) else "/"
    return MountDesk.target(mount, state.workdir) + slash


@dataclass(frozen=True, slots=True)
class _Order:
    """One RUN, ready to be carried out on a root file system."""

    step: Run
    state: StageState
    bench: Bench
    words: tuple[str, ...]
    script: str | None
    mounts: tuple[RunMount, ...]
    key: str

    def act(self, rootfs: RootFs) -> Receipt:
        """Raises StepFailed, BuildCancelled."""
        tail = Tail(self.bench)
        self.bench.meanwhile()
        with MountDesk(self.bench, self.step, self.state) as desk:
            spec = self._spec(rootfs, desk)
            with self.bench.turns:
                self.bench.check_cancelled()
                receipt = run_and_keep(
                    spec,
                    rootfs,
                    self.bench.keep_failed,
                    state=self.bench.state,
                    allow=self.bench.egress_allow,
                    on_output=tail.take,
                    on_end=lambda: self.bench.output(Stream.STDOUT, b""),
                    cancel=self.bench.cancel,
                    parent=self.bench.parent_cgroup,
                )
        if not receipt.ok:
            raise _failure(self.step, receipt, tail)
        return receipt

    def _spec(self, rootfs: RootFs, desk: MountDesk) -> SandboxSpec:
        bench, state = self.bench, self.state
        with open_root(rootfs.path) as root:
            account = _account(root, state, self.step)
        mounts = self._shown(desk)
        none = self.step.network == "none"
        kind, network = (Network.NONE, None) if none else bench.network()
        time = bench.layer_time(self.key)
        return SandboxSpec(
            id=f"build-{secrets.token_hex(8)}",
            rootfs=rootfs.path,
            args=self.words,
            ids=bench.ids,
            env={**_environment(state, bench, account, time), **desk.env},
            cwd=state.workdir,
            user=account.user,
            hostname="build",
            limits=bench.limits,
            mounts=mounts,
            network=kind,
            netns=network.netns if network is not None else None,
            upper=rootfs.upper,
            # Build steps install packages: sudo and setuid helpers must work as in docker build.
            # The user namespace bounds what they can become.
            no_new_privileges=False,
            secrets=(*desk.env, *_secret_targets(self.mounts, state)),
            note=bench.note(),
        )

    def _shown(self, desk: MountDesk) -> tuple[Mount, ...]:
        shown = desk.prepare(self.mounts)
        if self.script is not None:
            shown.append(desk.script(self.words[0], self.script))
        if self.bench.extra_ca is not None:
            shown.append(BindMount(source=self.bench.extra_ca, target=CA_PATH))
        return tuple(shown)


def _secret_targets(mounts: tuple[RunMount, ...], state: StageState) -> list[str]:
    found = [
        MountDesk.secret_target(each, state.workdir) for each in mounts if each.kind == "secret"
    ]
    return [target for target in found if target]


def _account(root: int, state: StageState, step: Run) -> Account:
    try:
        return find_account(root, state.config.user)
    except BuildError as error:
        error.place = error.place or step.at.place
        raise


def _environment(state: StageState, bench: Bench, account: Account, time: int) -> Mapping[str, str]:
    """What the command sees. Only ``state.env`` of it shapes the key, config and history."""
    env = {"PATH": DEFAULT_PATH, "HOME": account.home, "SOURCE_DATE_EPOCH": str(time)}
    if bench.extra_ca is not None:
        env.update(dict.fromkeys(CA_VARIABLES, CA_PATH))
    env.update(bench.step_env)
    env.update({k: v for k, v in bench.build_args.items() if k in PROXY_ARGS})
    env.update(state.env)
    return env


class Tail:
    """Passes output on and keeps its last lines for the error."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._chunks: deque[bytes] = deque()
        self._size = 0

    def take(self, stream: Stream, data: bytes) -> None:
        self._bench.output(stream, data)
        self._chunks.append(data)
        self._size += len(data)
        while self._size - len(self._chunks[0]) >= _TAIL_BYTES:
            self._size -= len(self._chunks.popleft())

    def text(self) -> str:
        lines = b"".join(self._chunks)[-_TAIL_BYTES:].decode("utf-8", "replace").splitlines()
        return "\n".join(lines[-_TAIL_LINES:])


_CAUSES = {
    Outcome.OOM: "ran out of memory",
    Outcome.TIMEOUT: "took too long",
    Outcome.PIDS: "started too many processes",
    Outcome.DISK: "wrote too much to the disk",
    Outcome.OUTPUT: "wrote too much output",
    Outcome.SILENT: "was silent for too long",
}


def _failure(step: Run, receipt: Receipt, tail: Tail) -> BuildError:
    if receipt.outcome is Outcome.CANCELLED:
        return BuildCancelled("The build was cancelled.", place=step.at.place)
    line = step.at.text if len(step.at.text) <= 100 else step.at.text[:97] + "..."
    if receipt.outcome is Outcome.EXITED:
        detail = f" ({receipt.detail})" if receipt.detail else ""
        ending = f"ended with exit code {receipt.exit_code}{detail}"
    else:
        detail = f": {receipt.detail}" if receipt.detail else ""
        ending = f"{_CAUSES.get(receipt.outcome, 'was stopped')}{detail}"
    return StepFailed(f"`{line}` {ending}.", receipt=receipt, tail=tail.text(), place=step.at.place)
