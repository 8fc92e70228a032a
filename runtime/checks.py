"""What is looked at before a sandbox is made: the spec against its parent and its root."""

from __future__ import annotations

import os
from dataclasses import replace

from runtime import paths
from runtime.errors import SpecError
from runtime.spec import BindMount, Parent, SandboxSpec
from runtime.validation import (
    ID_FORM,
    IN_DEV,
    MOUNTED_BY_US,
    cannot_mount,
    validate,
    validate_limits,
    within,
)


def checked(spec: SandboxSpec, parent: Parent) -> SandboxSpec:
    """``spec`` within its parent's budget. Raises SpecError for what cannot be."""
    validate(spec)
    validate_limits(parent.limits)
    if parent.name and not ID_FORM.fullmatch(parent.name):
        raise SpecError(
            f"{parent.name!r} is no name of a cgroup.",
            hint="Use letters, digits, '.', '_' and '-', 1 to 64, first a letter or digit.",
        )
    _check_rootfs(spec)
    return _within(spec, parent)


def _within(spec: SandboxSpec, parent: Parent) -> SandboxSpec:
    """No more processors than its parent: cgroups v1 refuse that, v2 would not give them."""
    whole, own = parent.limits.cpus, spec.limits.cpus
    if whole is None or own is None or own <= whole:
        return spec
    return replace(spec, limits=replace(spec.limits, cpus=whole))


def _check_rootfs(spec: SandboxSpec) -> None:
    """Raise SpecError for a root or working directory that runc would stumble over."""
    if not spec.rootfs.is_dir():
        raise SpecError(
            f"The root file system {spec.rootfs} is no directory.", hint="Mount it first."
        )
    closed = paths.readable_by_mapped(spec.rootfs.absolute())
    if closed is not None:
        raise SpecError(
            f"The sandbox's users cannot walk through {closed}, which is on the way to its root.",
            hint=f"Allow it: chmod o+x {closed}",
        )
    for mount in spec.mounts:
        if isinstance(mount, BindMount) and not mount.source.exists():
            raise SpecError(
                f"The mount source {mount.source} does not exist.", hint="Make it, or leave it out."
            )
    _check_targets(spec)
    if not within(spec.cwd, tuple(mount.target for mount in spec.mounts)):
        _check_cwd(spec)


def _check_targets(spec: SandboxSpec) -> None:
    """No mount may get to what the kernel shows through a link of the image's own: masked paths
    are mounted from /dev/null, and /proc is masked by name (CVE-2025-31133)."""
    with paths.open_root(spec.rootfs) as root:
        for mount in spec.mounts:
            if within(mount.target, IN_DEV):
                continue  # in our own fresh /dev, where the image has no links
            real = paths.resolve_in_root(root, mount.target)
            if within(real, MOUNTED_BY_US):
                raise cannot_mount(mount.target, f": it leads to {real}")


def _check_cwd(spec: SandboxSpec) -> None:
    """The working directory must be there, and be no link into /proc (CVE-2024-21626)."""
    with paths.open_root(spec.rootfs) as root:
        real = paths.resolve_in_root(root, spec.cwd)
        if within(real, MOUNTED_BY_US):
            raise SpecError(
                f"The working directory {spec.cwd} leads to {real}.",
                hint="Use one that is no link to /dev, /proc or /sys.",
            )
        try:
            os.close(paths.open_in_root(root, spec.cwd, os.O_PATH | os.O_DIRECTORY))
        except OSError as error:
            raise SpecError(
                f"The working directory {spec.cwd} is not there: {error.strerror}.",
                hint="Make it in the root file system, or choose another.",
            ) from error
