"""docs/settings.md on PostgreSQL, with what docs/operations.md says of it."""

from __future__ import annotations

from tests.postgresql import binaries
from tests.walk.commands import the_command
from tests.walk.place import Said
from tests.walk.walking import ADDRESS, Page, Walk, Way, proved

URL = "postgres://gantry:PASSWORD@127.0.0.1:5432/gantry"
DUMP = "pg_dump --format=custom --file=/backup/gantry.dump gantry"
RUN = "/var/lib/gantry/run"
RESTORE = "pg_restore --dbname=gantry"
WORKER = the_command("operations.md", ".venv/bin/python -m celery")
CLUSTER = f"""set -e
as_postgres="setpriv --reuid=postgres --regid=postgres --init-groups"
install -d -o postgres /srv/postgresql /var/run/postgresql && cd /srv/postgresql
$as_postgres {binaries()}/initdb -D data --no-sync --auth-host=scram-sha-256 >/tmp/initdb.log
setsid $as_postgres {binaries()}/postgres -D data -c fsync=off >/tmp/postgres.log 2>&1 &
until pg_isready -q -h 127.0.0.1; do sleep 0.1; done
"""


def _cluster(walk: Walk) -> None:
    walk.sh("systemctl stop gantry", cwd="/root")
    walk.sh(CLUSTER, cwd="/")
    walk.sh("chown postgres /backup", cwd="/")


def _with_it(walk: Walk, _: Said) -> None:
    walk.up()
    walk.page(OF_OPERATIONS)
    walk.sh("kill $(cat gantry.pid) && while [ -s gantry.pid ]; do sleep 0.2; done", cwd=RUN)


def _takes_part(walk: Walk) -> bool:
    """Is it among the workers that may be spoken to?"""
    ask = "redis-cli -s redis.sock smembers _kombu.binding.celery.pidbox"
    walk.wait("the worker", lambda: "more@" in walk.place.type(ask, cwd=RUN).text)
    return True


OF_OPERATIONS = Page(
    "operations.md",
    {
        DUMP: Way(
            user="postgres",
            cwd="/",
            then=proved("pg_restore --list /backup/gantry.dump | grep -q projects_project"),
        ),
        # Of an empty service: into a database that is as empty.
        RESTORE: Way(
            before=lambda walk: walk.sh("createdb again", user="postgres", cwd="/"),
            swap={"--dbname=gantry": "--dbname=again /backup/gantry.dump"},
            user="postgres",
            cwd="/",
            then=proved(
                "psql -tc 'select count(*) from django_migrations' again | grep -q [1-9]",
                user="postgres",
                cwd="/",
            ),
        ),
        # Celery's exit code after Ctrl-C is 1.
        WORKER: Way(
            until=_takes_part, says="Warm shutdown", code=1, env={"GANTRY_DATABASE_URL": URL}
        ),
    },
    only=[DUMP, WORKER, RESTORE],
)
# With what the client needs, while the service runs on SQLite.
CLIENT = Page(
    "settings.md",
    {
        "gantry login URL": Way(
            swap={"URL": ADDRESS}, given=lambda walk: walk.kept["token"] + "\n", says="Logged in"
        ),
    },
    only=["gantry login URL"],
)
POSTGRESQL = Page(
    "settings.md",
    {
        "createuser --pwprompt gantry && createdb --owner gantry gantry": Way(
            before=_cluster,
            given="PASSWORD\nPASSWORD\n",
            user="postgres",
            cwd="/",
            then=proved("psql -tc 'select 1' gantry | grep -q 1", user="postgres", cwd="/"),
        ),
        f"GANTRY_DATABASE_URL={URL} ./gantry up": Way(
            until="up after", stays=True, says="up after", then=_with_it
        ),
    },
    leaves=CLIENT.only,
)
