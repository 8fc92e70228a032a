"""What a fetch from a private repository shows: files in memory, for as long as it takes.

Nothing of it stands on a command line or in a repository's configuration. The name of the host
is looked up once: ssh is told the address, and the name only to compare the host's key by.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, urlsplit

from django.utils import timezone

from ciserver.lib import ssh
from ciserver.lib.crypto import SealBroken, Secret
from ciserver.lib.ownfolders import MEMORY, own_folder
from ciserver.projects.models import Project
from ciserver.repositories.errors import FetchFailed
from ciserver.repositories.models import Access

PREFIX = "gantry-git-"
CONNECT_SECONDS = 20


@dataclass(frozen=True, slots=True)
class Shown:
    """Further configuration and environment of one Git process."""

    settings: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)


@contextmanager
def shown(project: Project, address: str, *, to: Path) -> Iterator[Shown]:
    """The credentials of ``project`` for a Git that runs as whoever owns ``to``.

    ``address`` is where the host is; ssh asks there and nowhere else. A host key that was not
    known is pinned when the block ends well. Raises FetchFailed.
    """
    access = Access.objects.filter(project=project).first()
    parts = urlsplit(project.clone_url)
    if parts.scheme != "ssh" and not (access and access.username):
        yield Shown()
        return
    with own_folder(MEMORY, PREFIX) as folder:
        if parts.scheme == "ssh":
            key = _opened(access, "key")
            known = access.host_keys if access else ""
            yield _by_key(folder, to, key, known, parts.hostname or "", address)
            if access and not known:
                _pin(access, (folder / "known_hosts").read_text())
        else:
            yield _by_password(folder, to, access, project.clone_url)


def _by_key(folder: Path, to: Path, key: Secret, known: str, host: str, address: str) -> Shown:
    _write(folder / "key", key.reveal(), to)
    _write(folder / "known_hosts", known, to)
    _give(folder, to)
    options = {
        "IdentityFile": folder / "key",
        "StrictHostKeyChecking": "yes" if known else "accept-new",
        "UserKnownHostsFile": folder / "known_hosts",
        "HostKeyAlias": host,
        "ConnectTimeout": CONNECT_SECONDS,
        **({"HostName": address} if address else {}),
    }
    words = shlex.join(ssh.command(options))
    return Shown(env={"GIT_SSH_COMMAND": words, "GIT_SSH_VARIANT": "ssh"})


def _by_password(folder: Path, to: Path, access: Access | None, url: str) -> Shown:
    password = _opened(access, "password").reveal()
    parts = urlsplit(url)
    login = f"{quote(access.username if access else '', safe='')}:{quote(password, safe='')}"
    _write(folder / "login", f"{parts.scheme}://{login}@{parts.netloc}\n", to)
    _give(folder, to)
    return Shown(settings={"credential.helper": f"store --file={folder / 'login'}"})


def _opened(access: Access | None, name: str) -> Secret:
    try:
        found = getattr(access, name, None)
    except (SealBroken, ValueError):
        found = None
    if not isinstance(found, Secret):
        words = {
            "key": "Gantry has no key for this repository. Make one on the repository's page, and "
            "give its public half to the forge.",
            "password": "The password for this repository does not open. Enter it again on the "
            "repository's page.",
        }
        raise FetchFailed(words[name], temporary=False)
    return found


def _pin(access: Access, lines: str) -> None:
    if lines.strip():
        rows = Access.objects.filter(pk=access.pk, host_keys="")
        rows.update(host_keys=lines, host_keys_at=timezone.now())


def _write(path: Path, text: str, to: Path) -> None:
    path.touch(mode=0o600)
    path.write_text(text)
    _give(path, to)


def _give(path: Path, to: Path) -> None:
    status = to.stat()
    if os.geteuid() == 0:
        os.chown(path, status.st_uid, status.st_gid)
