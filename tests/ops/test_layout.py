"""Preparing a home: owners and modes, again and again."""

from __future__ import annotations

import grp
import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest

from ciserver.config import Config
from ciserver.ops import layout
from ciserver.ops.errors import OpsError
from ciserver.ops.launch import CHECKOUT

pytestmark = pytest.mark.root


def owners(path: Path) -> tuple[str, str, str]:
    stat = path.stat()
    mode = oct(stat.st_mode & 0o7777)
    return pwd.getpwuid(stat.st_uid).pw_name, grp.getgrgid(stat.st_gid).gr_name, mode


def test_each_folder_has_its_owner_and_mode(config: Config) -> None:
    layout.prepare(config.home)
    for folder in layout.FOLDERS:
        expected = (folder.owner, folder.group, oct(folder.mode))
        assert owners(config.home / folder.name) == expected, folder.name


def _as_service_user(*words: str) -> subprocess.CompletedProcess[str]:
    user = [f"--reuid={layout.SERVICE_USER}", f"--regid={layout.SERVICE_USER}", "--init-groups"]
    return subprocess.run(
        ["setpriv", *user, *words], check=False, capture_output=True, text=True, cwd="/"
    )


@pytest.mark.parametrize("of_an_earlier_version", [False, True])
def test_the_web_process_reads_mirrors_and_cannot_change_them(
    config: Config, of_an_earlier_version: bool
) -> None:
    layout.prepare(config.home)
    if of_an_earlier_version:
        os.chown(config.mirrors, 0, 0)
        config.mirrors.chmod(0o700)
    mirror = config.mirrors / "4.git"
    made = "umask 027 && git init -q --bare 4.git && git --git-dir 4.git hash-object -w --stdin"
    done = subprocess.run(
        ["sh", "-c", made], cwd=config.mirrors, input=b"hello\n", capture_output=True, check=True
    )
    layout.prepare(config.home)
    read = _as_service_user(
        "git", "--git-dir", str(mirror), "cat-file", "-p", done.stdout.decode().strip()
    )
    assert read.stdout == "hello\n", read.stderr
    for word in (str(mirror / "HEAD"), str(config.mirrors / "new")):
        assert _as_service_user("tee", "-a", word).returncode != 0


def test_the_web_process_reads_the_keys_and_cannot_change_them(config: Config) -> None:
    layout.prepare(config.home)
    found = {key.name: owners(key) for key in config.keys.iterdir()}
    assert {"secret_key", "registry.key", "registry.crt"} <= found.keys()
    assert set(found.values()) == {("root", "gantry", "0o640")}


def test_a_second_time_changes_nothing(config: Config) -> None:
    layout.prepare(config.home)
    before = {key: key.read_bytes() for key in config.keys.iterdir()}
    layout.prepare(config.home)
    assert {key: key.read_bytes() for key in config.keys.iterdir()} == before


def test_a_closed_folder_above_the_home_is_one_clear_sentence(config: Config) -> None:
    config.home.parent.chmod(0o700)
    with pytest.raises(OpsError) as refused:
        layout.prepare(config.home)
    assert f"{config.home.parent} is closed to the user gantry" in str(refused.value)
    assert "chmod o+x" in refused.value.next_step


def test_a_path_too_long_for_sockets_is_one_clear_sentence(config: Config) -> None:
    home = config.home.parent / ("x" * layout.LONGEST)
    with pytest.raises(OpsError) as refused:
        layout.prepare(home)
    assert "too long a path for the sockets" in str(refused.value)
    assert not home.exists()


def test_the_service_user_cannot_log_in() -> None:
    layout.make_user(Path("/var/lib/gantry"))
    assert pwd.getpwnam("gantry").pw_shell == "/usr/sbin/nologin"


def test_a_root_that_is_no_mount_point_is_one_clear_sentence(config: Config) -> None:
    """As in a plain chroot, where nobody can be given mounts of their own."""
    there = config.home.parent / "chroot"
    there.mkdir()
    script = """
    mount --make-rprivate /
    for folder in /*; do
        if [ -d "$folder" ] && [ ! -L "$folder" ]; then
            mkdir "$1$folder" && mount --rbind "$folder" "$1$folder"
        elif [ -L "$folder" ]; then
            ln -s "$(readlink "$folder")" "$1$folder"
        fi
    done
    exec chroot "$1" "$2" -m ciserver.ops prepare
    """
    command = ["unshare", "--mount", "sh", "-c", script, "sh", str(there), sys.executable]
    env = {"PATH": os.environ["PATH"], "GANTRY_HOME": str(config.home)}
    done = subprocess.run(
        command,
        env=env | {"PYTHONPATH": str(CHECKOUT)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 1
    first, second = done.stderr.splitlines()
    assert (
        first == "gantry: / is no mount point here, so no process can be given mounts of its own."
    )
    assert second.strip().startswith("Leave the chroot, or enter it with: unshare --mount sh -c")


def test_a_root_that_is_a_mount_point_passes() -> None:
    layout.check_root_is_a_mount()
    layout.check_root_is_a_mount("29 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw\n")
