"""WORKDIR: the config's working directory; where the image lacks it, the USER gets it made."""

from __future__ import annotations

import posixpath

from builders.cache import step_key
from builders.dockerfile.instructions import Workdir
from builders.errors import DockerfileError
from builders.steps.accounts import find_account
from builders.steps.bench import Bench, Done, layer_of
from builders.steps.placing import Placer
from builders.steps.state import StageState
from runtime.paths import open_root, resolve_in_root
from runtime.snapshots import RootFs

# What a sandbox mounts there is the kernel's: CVE-2024-21626 began with /proc/self/fd/N.
FORBIDDEN = ("/proc", "/sys", "/dev")


def workdir(step: Workdir, state: StageState, bench: Bench) -> Done:
    path = directory_of(step, state, bench)
    _check(path, step)
    after = state.configured(working_dir=path)
    if path == "/":
        return Done(after)

    def act(rootfs: RootFs) -> None:
        with open_root(rootfs.path) as root:
            _check(resolve_in_root(root, path), step)
            user = find_account(root, state.config.user).user
            owner = (user.uid, user.gid) if state.config.user else None
            placer = Placer(root, bench.ids, bench.layer_time(key), owner)
            placer.make_folders(path)

    key = step_key("workdir", state.chain, path, state.config.user)
    made = layer_of(bench, state.layers, key, act)
    return Done(after.with_layer(made.layer), made.layer, made.cached)


def directory_of(step: Workdir, state: StageState, bench: Bench) -> str:
    """The absolute path that is meant, as it is written."""
    written = bench.expander(step, state).word(step.path)
    path = posixpath.normpath(posixpath.join(state.workdir, written))
    return "/" + path.lstrip("/")


def _check(path: str, step: Workdir) -> None:
    if any(path == other or path.startswith(other + "/") for other in FORBIDDEN):
        raise DockerfileError(
            f"WORKDIR {path} is not possible: what is there belongs to the kernel.",
            place=step.at.place,
            hint="Choose another directory.",
            code="dockerfile.workdir",
        )
