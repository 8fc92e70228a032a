"""Starts a process of the service: own session, the right user, dead when its parent is.

``gantry`` may not be able to read the checkout (``/root/gantry`` is the usual case), so its
processes see it read-only at ``$GANTRY_HOME/app``: a bind mount in a mount namespace of their
own. Nothing is copied and the mount is gone with its last process.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

CHECKOUT = Path(__file__).resolve().parents[2]
SERVICE_USER = "gantry"

_PASSED_ON = {"PATH", "LANG", "TZ", "TERM", "http_proxy", "https_proxy", "no_proxy"}
_PASSED_ON |= {name.upper() for name in _PASSED_ON}
_PASSED_ON |= {"SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"}

# linux/sched.h, linux/mount.h, linux/prctl.h
_CLONE_NEWNS = 0x00020000
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_REMOUNT = 1, 2, 4, 32
_MS_BIND, _MS_REC, _MS_SLAVE = 4096, 16384, 1 << 19
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38

_libc = ctypes.CDLL(None, use_errno=True)


def service_environment(home: Path, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """What a child inherits: settings and the way to the network, never a shell's secrets."""
    kept = {k: v for k, v in os.environ.items() if k in _PASSED_ON or k.startswith("GANTRY_")}
    defaults = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
    fixed = {"GANTRY_HOME": str(home), "HOME": str(home), "LC_ALL": "C.UTF-8"}
    return {**defaults, **kept, **fixed, **(extra or {})}


def start(
    command: Sequence[str],
    *,
    home: Path,
    as_service_user: bool,
    output: IO[bytes],
    env: Mapping[str, str] | None = None,
    umask: int = 0o027,
    outlives_us: bool = False,
    pass_fds: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """Starts ``command`` in the checkout; it dies with the calling thread's process, unless it
    ``outlives_us``. Of our descriptors it has ``pass_fds`` alone, under their numbers.

    A first word of ``python`` becomes the virtual environment's interpreter, by the path at
    which the child can read it. Raises OSError when the program is not there.
    """
    code = home / "app" if as_service_user else CHECKOUT
    argv = [str(code / ".venv/bin/python") if command[0] == "python" else command[0], *command[1:]]
    paths = {"PYTHONPATH": str(code)}
    environment = service_environment(home, paths | dict(env or {}))
    return subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        env=environment,
        umask=umask,
        start_new_session=True,
        pass_fds=pass_fds,
        preexec_fn=_preparation(code, as_service_user, outlives_us),  # noqa: PLW1509 (we have one thread)
    )


def die_with_parent(number: signal.Signals) -> Callable[[], None]:
    """For ``preexec_fn``: the child gets the signal when the process that calls this now ends."""
    parent = os.getpid()

    def prepare() -> None:
        _checked(_libc.prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0))
        if os.getppid() != parent:
            os._exit(1)

    return prepare


def _preparation(code: Path, as_service_user: bool, outlives_us: bool) -> Callable[[], None]:
    """What runs between fork and exec; everything looked up beforehand."""
    die = die_with_parent(signal.SIGKILL)
    account = pwd.getpwnam(SERVICE_USER) if as_service_user else None

    def prepare() -> None:
        if account:
            _show_checkout(code)
            os.initgroups(account.pw_name, account.pw_gid)
            os.setgid(account.pw_gid)
            os.setuid(account.pw_uid)
            _checked(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        os.chdir(code)
        if not outlives_us:
            die()  # after setuid, which clears it

    return prepare


def _show_checkout(at: Path) -> None:
    _checked(_libc.unshare(_CLONE_NEWNS))
    _mount(None, Path("/"), _MS_REC | _MS_SLAVE)
    _mount(CHECKOUT, at, _MS_BIND)
    _mount(None, at, _MS_BIND | _MS_REMOUNT | _MS_RDONLY | _MS_NOSUID | _MS_NODEV)


def _mount(source: Path | None, target: Path, flags: int) -> None:
    given = bytes(source) if source else None
    _checked(_libc.mount(given, bytes(target), None, ctypes.c_ulong(flags), None))


def _checked(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
