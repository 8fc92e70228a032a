"""What a freshly bootstrapped tree loses and gets before it is an image.

The tree holds packages of the distribution alone, so plain paths are safe here.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from builders.bases import apt
from builders.bases.recipes import Recipe
from runtime.removal import remove_path

# As docker's slim images: no manuals and translations, but copyright files stay.
EXCLUDED = (
    "/usr/share/doc/*",
    "/usr/share/doc-base/*",
    "/usr/share/groff/*",
    "/usr/share/info/*",
    "/usr/share/linda/*",
    "/usr/share/lintian/*",
    "/usr/share/locale/*",
    "/usr/share/man/*",
)
INCLUDED = ("/usr/share/doc/*/copyright", "/usr/share/locale/locale.alias")

_EMPTIED = (
    "dev", "proc", "run", "sys", "tmp", "var/cache/apt", "var/cache/ldconfig",
    "var/lib/apt/lists", "var/lib/apt/mirrors", "var/tmp", "etc/apt/sources.list.d",
)  # fmt: skip
_REMOVED = (
    "etc/.pwd.lock", "etc/apt/apt.conf.d/99mmdebstrap", "etc/apt/sources.list", "etc/hostname",
    "etc/resolv.conf", "etc/group-", "etc/gshadow-", "etc/passwd-", "etc/shadow-", "etc/subgid-",
    "etc/subuid-", "var/cache/debconf/config.dat-old", "var/cache/debconf/templates.dat-old",
    "var/lib/apt/extended_states.old", "var/lib/dpkg/diversions-old",
    "var/lib/dpkg/lock", "var/lib/dpkg/lock-frontend", "var/lib/dpkg/statoverride-old",
    "var/lib/dpkg/status-old", "var/lib/dpkg/triggers/Lock", "var/lib/systemd/catalog/database",
)  # fmt: skip

_APT_SETTINGS = """\
// Images keep no package lists and no packages: the next layer would not need them.
APT::Keep-Downloaded-Packages "false";
DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb /var/cache/apt/*.bin || true"; };
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
Acquire::Languages "none";
Acquire::GzipIndexes "true";
APT::AutoRemove::SuggestsImportant "false";
"""
_POLICY = "#!/bin/sh\n# Nothing starts services while an image is built.\nexit 101\n"


def tidy(tree: Path, recipe: Recipe) -> None:
    """Remove what names this machine, what varies and what nobody needs; add our settings."""
    for name in _EMPTIED:
        _empty(tree / name)
    for name in _REMOVED:
        (tree / name).unlink(missing_ok=True)
    _truncate_logs(tree / "var/log")
    if (tree / "etc/machine-id").exists():
        (tree / "etc/machine-id").write_text("")
    for name in ("var/cache/apt/archives/partial", "var/lib/apt/lists/partial"):
        (tree / name).mkdir(mode=0o700, parents=True, exist_ok=True)
        os.chown(tree / name, _apt_user(tree), 0)
    _write(tree / f"etc/apt/sources.list.d/{recipe.distribution}.sources",
           apt.standard_sources(recipe))  # fmt: skip
    _write(tree / "etc/apt/apt.conf.d/90container", _APT_SETTINGS)
    _write(tree / "usr/sbin/policy-rc.d", _POLICY, 0o755)
    dpkg_settings = tree / "etc/dpkg/dpkg.cfg.d/99mmdebstrap"
    if dpkg_settings.exists():
        dpkg_settings.rename(dpkg_settings.with_name("90container"))
    if recipe.python:
        link = tree / "usr/local/bin/python"
        link.unlink(missing_ok=True)
        link.symlink_to("/usr/bin/python3")


def _apt_user(tree: Path) -> int:
    """The user apt downloads as; it wants its folders to be that user's."""
    for line in (tree / "etc/passwd").read_text().splitlines():
        fields = line.split(":")
        if fields[0] == "_apt":
            return int(fields[2])
    return 0


def newest_packaged_time(tree: Path, *, before: float) -> int:
    """The newest modification time (seconds) that came with a package.

    What was made here is newer than ``before``. So the result depends on the packages
    alone, and no file that a package dated, such as the source of a .pyc, is changed.
    """
    newest = 0.0
    for folder, folders, files in os.walk(tree):
        for name in (*folders, *files):
            time = os.lstat(f"{folder}/{name}").st_mtime
            if newest < time < before:
                newest = time
    return int(newest)


def _empty(folder: Path) -> None:
    if not folder.is_dir() or folder.is_symlink():
        return
    for child in folder.iterdir():
        if child.is_dir() and not child.is_symlink():
            remove_path(child)
        else:
            child.unlink()


def _truncate_logs(folder: Path) -> None:
    for path in folder.rglob("*"):
        status = path.lstat()
        if stat.S_ISREG(status.st_mode):
            # btmp and wtmp are expected to be there; what apt and dpkg wrote is not.
            if path.name in ("btmp", "wtmp", "lastlog", "faillog"):
                path.write_bytes(b"")
            else:
                path.unlink()


def _write(path: Path, text: str, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
