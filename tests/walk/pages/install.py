"""docs/install.md."""

from __future__ import annotations

import re

from tests.walk import warm
from tests.walk.commands import the_command
from tests.walk.place import Said, make_venv
from tests.walk.walking import ADDRESS, Page, Walk, Way, proved

CLONE = "git clone https://… gantry && cd gantry"
UNIT = the_command("install.md", "cat > /etc/systemd/system/gantry.service")
START = "systemctl daemon-reload && systemctl enable --now gantry"
ADMIN = "./gantry admin"
CADDY_STOP = the_command("install.md", "curl --unix-socket")
# What fails is kept, and messages may go to a listener of this machine.
SETTINGS = "GANTRY_KEEP_FAILED=3600\nGANTRY_FETCH_ALLOW=127.0.0.0/8\n"


def _clone(walk: Walk, _: Said) -> None:
    make_venv(walk.place)


def _up(walk: Walk, _: Said) -> None:
    walk.up()


def _administrator(walk: Walk, said: Said) -> None:
    found = re.search(r"^Password  (\S+)$", said.text, re.MULTILINE)
    assert found, said.text
    walk.kept["password"] = found[1]
    walk.take_token()


INSTALL = Page(
    "install.md",
    {
        CLONE: Way(cwd="/root", then=_clone),
        UNIT: Way(then=proved("grep -q ^KillMode=process /etc/systemd/system/gantry.service")),
        START: Way(then=_up),
        ADMIN: Way(says=rf"(?m)^Address   {ADDRESS}\nUser      admin$", then=_administrator),
    },
    only=[CLONE, UNIT, START, ADMIN],
)
# While the service runs.
RUNNING = Page(
    "install.md",
    {
        # It is up already: that its variables are taken is seen by what it then refuses.
        "GANTRY_BIND=0.0.0.0 GANTRY_URL=https://ci.example ./gantry up": Way(
            code=1, says=r"already runs here as process \d+ \(https://ci.example\)"
        ),
        "./gantry login URL": Way(
            swap={"URL": ADDRESS}, given=lambda walk: walk.kept["token"] + "\n", says="as admin"
        ),
        "ss -ltnp": Way(says=r":8000\b"),
        "podman ps": Way(says="gantry-"),
        "podman network ls": Way(says="gantry-"),
    },
    only=[
        "GANTRY_BIND=0.0.0.0 GANTRY_URL=https://ci.example ./gantry up",
        "./gantry login URL",
        "ss -ltnp",
        "podman ps",
        "podman network ls",
    ],
)
SOCKET = "/var/lib/gantry/run/caddy.sock"
ASK = f"curl -s --unix-socket {SOCKET} http://localhost/config/ >/dev/null"
START = "setsid caddy run --config /var/lib/gantry/run/caddy.json </dev/null >/tmp/caddy.log 2>&1"


def _caddy_runs(walk: Walk) -> None:
    """One that served nothing any more has ended with the service: its last database was empty."""
    walk.sh(f"{ASK} || {{ {START} & until {ASK}; do sleep 0.1; done; }}", cwd="/")


# Taking it away.
REMOVING = Page(
    "install.md",
    {
        CADDY_STOP: Way(
            before=_caddy_runs,
            then=proved(f"timeout 20 sh -c 'while {ASK}; do sleep 0.2; done'"),
        ),
        # Its folder is a mount here.
        "rm -rf /var/lib/gantry": Way(
            swap={"/var/lib/gantry": "/var/lib/gantry/*"},
            then=proved('test -z "$(ls /var/lib/gantry)"'),
        ),
        "userdel gantry": Way(then=proved("! getent passwd gantry")),
        "nft delete table inet gantry_deployed": Way(
            then=proved("! nft list table inet gantry_deployed")
        ),
    },
    only=[
        CADDY_STOP,
        "rm -rf /var/lib/gantry",
        "userdel gantry",
        "nft delete table inet gantry_deployed",
    ],
)


def install(walk: Walk) -> None:
    """As far as the service runs and its administrator is logged in; the client is warm."""
    walk.place.write("/etc/gantry.env", SETTINGS)
    walk.page(INSTALL)
    assert not walk.wrong, walk.wrong
    walk.place.write("/usr/local/bin/gantry", warm.PROGRAM, 0o755)
    walk.place.machine.sh(
        "cd /root/gantry && setsid .venv/bin/python -m tests.walk.warm </dev/null >/tmp/warm 2>&1 &"
    )
    walk.wait("the client", lambda: walk.place.path(warm.SOCKET).is_socket())
