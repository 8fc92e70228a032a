"""Preparing a home: owners and modes, again and again."""

from __future__ import annotations

import grp
import pwd
from pathlib import Path

import pytest

from ciserver.config import Config
from ciserver.ops import layout
from ciserver.ops.errors import OpsError

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


def test_the_service_user_cannot_log_in() -> None:
    layout.make_user(Path("/var/lib/gantry"))
    assert pwd.getpwnam("gantry").pw_shell == "/usr/sbin/nologin"
