"""This machine's apt: its mirrors and settings, as values for mmdebstrap.

mmdebstrap reads none of /etc/apt by itself, so what makes apt work here (proxy,
certificates, credentials) is handed over in a file that is removed again.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from builders.bases.recipes import Recipe

POCKETS = ("", "-updates", "-security")
_STANDARD: Mapping[str, Mapping[str, str]] = {
    "debian": {
        "": "http://deb.debian.org/debian",
        "-updates": "http://deb.debian.org/debian",
        "-security": "http://deb.debian.org/debian-security",
    },
    "ubuntu": {
        "": "http://archive.ubuntu.com/ubuntu",
        "-updates": "http://archive.ubuntu.com/ubuntu",
        "-security": "http://security.ubuntu.com/ubuntu",
    },
}
_COMPONENTS: Mapping[str, str] = {
    "debian": "main",
    "ubuntu": "main restricted universe multiverse",
}
# How packages are fetched; not what is fetched, and no hooks, which name programs of this host.
_TRANSFERRED = re.compile(
    r"Acquire::(?:(?:https?|ftp|socks)::.*|Retries|ForceIPv[46]|Check-(?:Date|Valid-Until)"
    r"|Max-FutureTime|Queue-Mode|By-Hash)(?: |$)",
    re.IGNORECASE,
)
_CREDENTIALS = (
    'Dir::Etc::netrc "/etc/apt/auth.conf";\nDir::Etc::netrcparts "/etc/apt/auth.conf.d";\n'
)


@dataclass(frozen=True, slots=True)
class Release:
    """What /etc/os-release says: ``debian`` or ``ubuntu``, and the codename."""

    distribution: str
    codename: str


@dataclass(frozen=True, slots=True)
class Target:
    """One entry of the machine's apt sources."""

    uri: str
    suite: str
    component: str


def host_release(path: Path = Path("/etc/os-release")) -> Release:
    """This machine's distribution; empty texts where it does not say."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return Release("", "")
    values = {key: value.strip("\"'") for key, _, value in (x.partition("=") for x in lines)}
    return Release(values.get("ID", ""), values.get("VERSION_CODENAME", ""))


def host_targets() -> list[Target]:
    """What apt would read package lists from; empty where there is no apt."""
    text = _output(
        "apt-get",
        "indextargets",
        "--format=$(REPO_URI)|$(RELEASE)|$(COMPONENT)",
        "Created-By: Packages",
    )
    rows = (line.split("|") for line in text.splitlines())
    return [Target(row[0].rstrip("/"), row[1], row[2]) for row in rows if len(row) == 3]


def dump_settings() -> str:
    """All of apt's configuration, one ``Key "value";`` a line."""
    return _output("apt-config", "dump")


def transferable_settings(dump: str) -> str:
    """The part of apt's configuration that says how to fetch, and where credentials are."""
    kept = [line for line in dump.splitlines() if _TRANSFERRED.match(line)]
    return "".join(f"{line}\n" for line in kept) + _CREDENTIALS


def sources_for(recipe: Recipe, targets: Sequence[Target], here: Release) -> list[str]:
    """One-line apt sources to bootstrap from: this machine's mirrors where they can serve it."""
    uris = dict(_STANDARD[recipe.distribution])
    if here.distribution == recipe.distribution:
        for pocket in POCKETS:
            suites = (f"{here.codename}{pocket}", f"stable{pocket}")
            for target in targets:
                usable = target.component == "main" and not target.uri.startswith("cdrom:")
                if target.suite in suites and usable:
                    uris[pocket] = target.uri
                    break
    return [f"deb {uris[pocket]} {recipe.suite}{pocket} main" for pocket in POCKETS]


def standard_sources(recipe: Recipe) -> str:
    """The deb822 file that goes into the image."""
    uris = _STANDARD[recipe.distribution]
    stanzas = []
    for uri in dict.fromkeys(uris.values()):
        suites = " ".join(f"{recipe.suite}{p}" for p in POCKETS if uris[p] == uri)
        stanzas.append(
            f"Types: deb\nURIs: {uri}\nSuites: {suites}\n"
            f"Components: {_COMPONENTS[recipe.distribution]}\nSigned-By: {recipe.keyring}\n"
        )
    return "\n".join(stanzas)


def environment(epoch: int) -> dict[str, str]:
    """For mmdebstrap: no locale or home of the caller's; a proxy named there stays."""
    kept = {k: v for k, v in os.environ.items() if k.lower().endswith("_proxy") or k == "TMPDIR"}
    return {
        **kept,
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LC_ALL": "C.UTF-8",
        "HOME": "/nonexistent",
        "DEBIAN_FRONTEND": "noninteractive",
        "SOURCE_DATE_EPOCH": str(epoch),
    }


def _output(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return done.stdout if done.returncode == 0 else ""
