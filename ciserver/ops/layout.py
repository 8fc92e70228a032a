"""The folders of $GANTRY_HOME, the user who owns some of them, and the keys.

Every step may be run again and changes nothing the second time.
"""

from __future__ import annotations

import os
import pwd
import subprocess
from dataclasses import dataclass
from pathlib import Path

from ciserver.lib.keys import ensure_keys
from ciserver.ops.errors import OpsError
from ciserver.ops.launch import CHECKOUT, SERVICE_USER

LONGEST = 60  # bytes of a home's path; run/ssh/… and what ssh adds to a socket's name take 46


@dataclass(frozen=True, slots=True)
class Folder:
    """One folder below $GANTRY_HOME. Owned by root or by the service user; see FOLDERS."""

    name: str
    owner: str
    group: str
    mode: int


FOLDERS = (
    Folder("app", "root", "root", 0o755),  # where the service user's processes see the code
    Folder("db", SERVICE_USER, SERVICE_USER, 0o750),
    Folder("repositories", SERVICE_USER, SERVICE_USER, 0o750),
    Folder("registry", SERVICE_USER, SERVICE_USER, 0o700),
    Folder("redis", SERVICE_USER, SERVICE_USER, 0o700),
    Folder("static", SERVICE_USER, SERVICE_USER, 0o755),
    Folder("spool", SERVICE_USER, SERVICE_USER, 0o700),
    # setgid: what the worker writes as root, the web process may read.
    Folder("logs", "root", SERVICE_USER, 0o2750),
    Folder("artifacts", "root", SERVICE_USER, 0o2750),
    Folder("mirrors", "root", SERVICE_USER, 0o2750),
    Folder("logs/service", "root", "root", 0o750),
    # Sticky: the service user makes sockets here and cannot replace root's.
    Folder("run", "root", SERVICE_USER, 0o1770),
    Folder("keys", "root", SERVICE_USER, 0o750),
    Folder("caddy", "root", "root", 0o700),
    Folder("demo", "root", "root", 0o700),  # the administrator's first password is in it
    # Sandboxes' own ids walk through these, and can list neither.
    Folder("store", "root", "root", 0o711),
    Folder("sandboxes", "root", "root", 0o711),
)


def prepare(home: Path) -> None:
    """All of it, in order. Raises OpsError."""
    check_root_is_a_mount()
    check_code_is_readable()
    make_user(home)
    make_folders(home)
    make_keys(home)


def make_user(home: Path) -> None:
    """The system user ``gantry``, who has no shell and no password."""
    try:
        pwd.getpwnam(SERVICE_USER)
    except KeyError:
        command = ["useradd", "--system", "--user-group", "--no-create-home"]
        command += ["--home-dir", str(home), "--shell", "/usr/sbin/nologin", SERVICE_USER]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise OpsError(
                f"The user {SERVICE_USER} could not be made: {done.stderr.strip()}.",
                next_step=f"Make it by hand: {' '.join(command)}",
            ) from None


def make_folders(home: Path) -> None:
    _check_short(home)
    home.mkdir(mode=0o755, parents=True, exist_ok=True)
    for folder in FOLDERS:
        path = home / folder.name
        path.mkdir(exist_ok=True)
        os.chown(path, pwd.getpwnam(folder.owner).pw_uid, pwd.getpwnam(folder.group).pw_gid)
        path.chmod(folder.mode)
    _share(home / "mirrors")
    _check_reachable(home)


def _share(mirrors: Path) -> None:
    """Mirrors of earlier versions were root's alone: nobody could start their pipelines by hand."""
    group = pwd.getpwnam(SERVICE_USER).pw_gid
    for mirror in mirrors.iterdir():
        if mirror.stat().st_gid == group:
            continue
        for folder, _, files in os.walk(mirror):
            for name in files:
                os.chown(Path(folder) / name, 0, group, follow_symlinks=False)
            os.chown(folder, 0, group)
            Path(folder).chmod(0o2750)
        os.chown(mirror, 0, group)


def make_keys(home: Path) -> None:
    """The installation's keys: root's, and readable by the service user's group."""
    ensure_keys(home / "keys")
    for key in (home / "keys").iterdir():
        os.chown(key, 0, pwd.getpwnam(SERVICE_USER).pw_gid)
        key.chmod(0o640)


def check_root_is_a_mount(mounts: str | None = None) -> None:
    """The service user's processes get mounts of their own (see ``launch``), which needs ``/`` to
    be a mount point. In a plain chroot it is none. ``mounts``: what /proc/self/mountinfo says."""
    try:
        lines = (
            Path("/proc/self/mountinfo").read_text() if mounts is None else mounts
        ).splitlines()
    except OSError:
        lines = []
    # proc(5): the fifth field is the mount point, seen from the process's own root.
    if not any(line.split(" ")[4:5] == ["/"] for line in lines):
        raise OpsError(
            "/ is no mount point here, so no process can be given mounts of its own.",
            next_step="Leave the chroot, or enter it with: unshare --mount sh -c"
            " 'mount --rbind DIR DIR && exec chroot DIR'",
        )


def check_code_is_readable() -> None:
    """The folders above the checkout may be closed, the files in it may not."""
    for path in (CHECKOUT, CHECKOUT / "ciserver", CHECKOUT / "manage.py", CHECKOUT / ".venv"):
        if not path.stat().st_mode & 0o004:
            raise OpsError(
                f"{path} cannot be read by the user {SERVICE_USER}, who runs the web process.",
                next_step=f"Type: chmod -R o+rX {CHECKOUT}",
            )


def _check_short(home: Path) -> None:
    """Sockets lie in it, whose paths the kernel limits to 107 bytes (unix(7))."""
    if len(os.fsencode(home)) > LONGEST:
        raise OpsError(
            f"{home} is too long a path for the sockets that lie in it.",
            next_step=f"Set GANTRY_HOME to a folder whose path has at most {LONGEST} bytes.",
        )


def _check_reachable(home: Path) -> None:
    for parent in home.resolve().parents:
        if not parent.stat().st_mode & 0o001:
            raise OpsError(
                f"{parent} is closed to the user {SERVICE_USER}, so {home} cannot hold the data.",
                next_step=f"Type: chmod o+x {parent} -- or set GANTRY_HOME to another folder.",
            )
