"""docs/operations.md but for what it says of PostgreSQL."""

from __future__ import annotations

import json
from typing import Any

from tests.walk.commands import MANAGE, the_command
from tests.walk.pages.settings import OF_OPERATIONS
from tests.walk.place import Said
from tests.walk.shop import DOCKERFILE, UNIT
from tests.walk.walking import ADDRESS, Page, Walk, Way, proved

# A commit of Gantry after this one: it adds a table.
NEXT_VERSION = """
from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("lib", "{last}")]
    operations = [migrations.RunSQL("CREATE TABLE of_the_next_version (id integer)")]
"""
FAILING_BUILD = f"""{DOCKERFILE}
RUN --network=none sh -c 'echo no such compiler >/tmp/build.log; exit 1'
"""
BACKUP = the_command("operations.md", "tar -C /var/lib/gantry -czf /backup")
KEYS = the_command("operations.md", "tar -C /var/lib/gantry -czf /elsewhere")
RESTORE_BACKUP = the_command("operations.md", "tar -C /var/lib/gantry -xpzf /backup")
RESTORE_KEYS = the_command("operations.md", "tar -C /var/lib/gantry -xpzf /elsewhere")
VACUUM = the_command("operations.md", ".venv/bin/python -c")


def _shown(walk: Walk) -> Any:
    """What must be the same afterwards."""
    return {
        "projects": walk.ask("gantry projects"),
        "releases": walk.ask("gantry releases"),
        "secrets": walk.ask("gantry secrets list shop"),
        "log": walk.sh("gantry logs shop 1"),
        "git": walk.sh("git ls-remote http://127.0.0.1:8000/git/shop.git"),
    }


def _keep(walk: Walk) -> None:
    walk.kept["before"] = json.dumps(_shown(walk))


def _another_machine(walk: Walk) -> None:
    """All that the backup does not hold is gone."""
    walk.sh("systemctl stop gantry")
    walk.sh("curl -s --unix-socket /var/lib/gantry/run/caddy.sock -X POST http://localhost/stop")
    walk.sh("userdel gantry && find /var/lib/gantry -mindepth 1 -delete")


def _as_before(walk: Walk, _: Said) -> None:
    walk.up()
    assert _shown(walk) == json.loads(walk.kept["before"])
    walk.sh("cat /var/lib/gantry/run/gantry.pid >/run/gantry.pid")


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


def _copied(walk: Walk, _: Said) -> None:
    walk.sh("test -s /backup/gantry.sqlite3")


def _failed_test(walk: Walk) -> None:
    walk.push("Fails", {"root/srv/unit.sh": UNIT + "exit 1\n"})
    walk.ended("shop", "failed")


def _failed_build(walk: Walk) -> None:
    walk.push("Does not build", {"Dockerfile": FAILING_BUILD})
    walk.ended("shop", "failed")


def _kept_id(walk: Walk) -> str:
    return walk.kept["kept id"]


def _dropped(walk: Walk, _: Said) -> None:
    listed = walk.sh(".venv/bin/python -m runtime list", cwd="/root/gantry")
    assert walk.kept["kept id"] not in listed


def _note_id(walk: Walk, said: Said) -> None:
    [row, *_] = [row for row in said.text.splitlines() if "no such compiler" in row]
    walk.kept["kept id"] = row.split()[0]


PAGE = Page(
    "operations.md",
    {
        "systemctl stop gantry": Way(
            before=_keep, then=proved(f"! curl -s -o /dev/null {ADDRESS}/healthz")
        ),
        BACKUP: Way(
            then=proved("tar -tzf /backup/gantry.tar.gz | grep -qx db/gantry.sqlite3"),
        ),
        KEYS: Way(then=proved("tar -tzf /elsewhere/gantry-keys.tar.gz | grep -q ^keys/.")),
        "systemctl start gantry": Way(then=lambda walk, _: walk.up()),
        VACUUM: Way(then=_copied),
        ".venv/bin/python -m ciserver.ops prepare": Way(
            before=_another_machine,
            then=proved("test $(stat -c %U /var/lib/gantry/db) = gantry"),
        ),
        RESTORE_BACKUP: Way(then=proved("test -s /var/lib/gantry/db/gantry.sqlite3")),
        RESTORE_KEYS: Way(then=proved('test -n "$(ls /var/lib/gantry/keys)"')),
        "./gantry up": Way(until="up after", stays=True, says="up after", then=_as_before),
        "systemctl stop gantry && git pull && systemctl start gantry": Way(
            before=_next_version, then=_has_the_table
        ),
        "gantry inspect shop unit -- ls -la /srv": Way(before=_failed_test, says="unit.sh"),
        "gantry inspect shop build --pipeline 12 -- cat /tmp/build.log": Way(
            before=_failed_build,
            swap={"12": lambda walk: str(walk.newest("shop")["number"])},
            says="^no such compiler$",
        ),
        ".venv/bin/python -m runtime list": Way(then=_note_id),
        ".venv/bin/python -m runtime exec ID -- sh -c 'tail /tmp/build.log'": Way(
            swap={"ID": _kept_id}, says="^no such compiler$"
        ),
        ".venv/bin/python -m runtime drop ID": Way(swap={"ID": _kept_id}, then=_dropped),
        "./gantry collect --dry-run": Way(says=r"^\d+ blobs would go"),
        "./gantry collect": Way(says=r"^\d+ blobs went"),
        the_command("operations.md", f"{MANAGE} rotate_keys"): Way(
            says=r"^Key \S+ seals from now on; [1-9]\d* secrets were sealed anew"
        ),
        "gantry start PROJECT": Way(swap={"PROJECT": "shop"}, says="^Started pipeline #"),
        "chown gantry:gantry": Way(
            swap={"gantry:gantry": "gantry:gantry /backup/gantry.sqlite3"},
            then=proved("test $(stat -c %U:%G /backup/gantry.sqlite3) = gantry:gantry"),
        ),
    },
    leaves=OF_OPERATIONS.only,
)
