"""Backup, restore and upgrade, by the commands of docs/operations.md and docs/install.md."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.walk.commands import commands_of
from tests.walk.place import CHECKOUT, Said, make_venv, place
from tests.walk.walking import Walk, Way

pytestmark = [pytest.mark.e2e, pytest.mark.root, pytest.mark.timeout(900)]
START = "systemctl daemon-reload && systemctl enable --now gantry"
BACKUP = "tar -C /var/lib/gantry -czf /backup/gantry.tar.gz db repositories registry logs artifacts"
KEYS = "tar -C /var/lib/gantry -czf /elsewhere/gantry-keys.tar.gz keys"
RESTORE = "tar -C /var/lib/gantry -xpzf /backup/gantry.tar.gz"
RESTORE_KEYS = "tar -C /var/lib/gantry -xpzf /elsewhere/gantry-keys.tar.gz"
UPGRADE = "systemctl stop gantry && git pull && systemctl start gantry"
# A commit of Gantry after this one: it adds a table.
NEXT_VERSION = """
from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("lib", "{last}")]
    operations = [migrations.RunSQL("CREATE TABLE of_the_next_version (id integer)")]
"""


@pytest.fixture
def walk(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("GANTRY_TOKEN", "so that login does not ask")
    with place() as here:
        walk = Walk(here)
        yield walk
    assert not walk.wrong, "\n\n".join(["", *walk.wrong])


def test_what_was_backed_up_is_restored_and_the_next_version_goes_on_with_it(walk: Walk) -> None:
    _install(walk)
    _push_a_project(walk)
    walk.page(
        "operations.md",
        {
            "systemctl stop gantry": Way(),
            BACKUP: Way(),
            KEYS: Way(),
            "systemctl start gantry": Way(then=lambda walk, _: walk.up()),
            ".venv/bin/python -m ciserver.ops prepare": Way(before=_another_machine),
            RESTORE: Way(),
            RESTORE_KEYS: Way(),
            "./gantry up": Way(until="up after", says="up after", then=_as_before),
            UPGRADE: Way(before=_next_version, then=_has_the_table),
            "cd /root/gantry && .venv/bin/python manage.py rotate_keys": Way(),
        },
        rest=False,
    )


def _install(walk: Walk) -> None:
    walk.sh("git clone -q https://… gantry", cwd="/root")
    make_venv(walk.place)
    walk.place.write("/usr/local/bin/gantry", '#!/bin/sh\nexec /root/gantry/gantry "$@"\n', 0o755)
    unit = next(line for line in _install_page() if line.startswith("cat > /etc/systemd"))
    walk.page("install.md", {unit: Way(), START: Way(then=lambda walk, _: walk.up())}, rest=False)
    walk.sh("./gantry admin", cwd="/root/gantry")
    kept = json.loads(walk.place.path("/root/.config/gantry/client.json").read_text())
    walk.place.write("/root/.git-credentials", f"http://x:{kept['token']}@127.0.0.1%3a8000\n")


def _install_page() -> list[str]:
    return commands_of(Path(CHECKOUT) / "docs" / "install.md")


def _push_a_project(walk: Walk) -> None:
    """Without a base, so that nothing is fetched."""
    walk.place.write("/root/shop/Dockerfile", "FROM scratch\nCOPY Dockerfile /\n")
    walk.sh(
        "gantry new shop && echo of ours | gantry secrets set shop API_TOKEN && git init -q"
        " && git add -A && git commit -qm First"
        " && git push -q http://127.0.0.1:8000/git/shop.git HEAD:main"
    )
    walk.passed("shop")
    walk.wait("a release", lambda: walk.ask("gantry releases shop"))
    walk.kept["before"] = json.dumps(_shown(walk))


def _shown(walk: Walk) -> Any:
    """What must be the same afterwards."""
    return {
        "projects": walk.ask("gantry projects"),
        "releases": walk.ask("gantry releases"),
        "secrets": walk.ask("gantry secrets list shop"),
        "log": walk.sh("gantry logs shop 1"),
        "git": walk.sh("git ls-remote http://127.0.0.1:8000/git/shop.git"),
    }


def _another_machine(walk: Walk) -> None:
    """All that the backup does not hold is gone."""
    walk.sh("systemctl stop gantry")
    walk.sh("curl -s --unix-socket /var/lib/gantry/run/caddy.sock -X POST http://localhost/stop")
    walk.sh("userdel gantry && find /var/lib/gantry -mindepth 1 -delete")


def _as_before(walk: Walk, _: Said) -> None:
    walk.sh("systemctl start gantry")
    walk.up()
    assert _shown(walk) == json.loads(walk.kept["before"])


def _next_version(walk: Walk) -> None:
    folder = "/srv/origin/ciserver/lib/migrations"
    last = walk.sh(f"ls {folder} | grep ^0 | tail -n 1").strip().removesuffix(".py")
    walk.place.write(f"{folder}/9000_next.py", NEXT_VERSION.format(last=last))
    walk.sh("git add -A && git commit -qm 'The next version'", cwd="/srv/origin")


def _has_the_table(walk: Walk, _: Said) -> None:
    walk.up()
    assert _shown(walk) == json.loads(walk.kept["before"])
    ask = "select name from sqlite_master"
    read = f'import sqlite3; print(*sqlite3.connect("db/gantry.sqlite3").execute("{ask}"))'
    assert "of_the_next_version" in walk.sh(f"python3 -c '{read}'", cwd="/var/lib/gantry")
