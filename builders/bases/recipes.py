"""Which base images can be made, and from what. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, replace

from builders.bases.apt import Release, host_release
from builders.errors import ImageNotFound
from builders.images.reference import Reference


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """``epoch`` is the suite's release day: what has no time of its own gets it (seconds)."""

    distribution: str  # debian or ubuntu
    suite: str
    epoch: int
    packages: tuple[str, ...]
    command: tuple[str, ...]
    python: bool = False
    entrypoint: tuple[str, ...] = ()
    user: str = ""
    exposed: tuple[str, ...] = ()
    health: tuple[str, ...] = ()  # as HEALTHCHECK has it

    @property
    def keyring(self) -> str:
        return f"/usr/share/keyrings/{self.distribution}-archive-keyring.gpg"

    @property
    def keyring_package(self) -> str:
        return "ubuntu-keyring" if self.distribution == "ubuntu" else "debian-archive-keyring"


# Suite: (distribution, day of its release).
SUITES: Mapping[str, tuple[str, int]] = {
    "bookworm": ("debian", 1686355200),
    "trixie": ("debian", 1754697600),
    "jammy": ("ubuntu", 1650499200),
    "noble": ("ubuntu", 1713916800),
}
_NAMES: Mapping[str, str] = {
    "debian:bookworm-slim": "bookworm",
    "debian:trixie-slim": "trixie",
    "ubuntu:24.04": "noble",
}
PYTHON = "gantry/python:3"
POSTGRES = "gantry/postgres:15"
# For tests: whoever reaches it may do all, as POSTGRES_HOST_AUTH_METHOD=trust of Docker Hub's.
POSTGRES_START = """set -e
: "${PGDATA:=/var/lib/postgresql/data}"
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    initdb --pgdata="$PGDATA" --username=postgres --auth=trust --encoding=UTF8 --no-sync >/dev/null
    echo "host all all all trust" >>"$PGDATA/pg_hba.conf"
fi
exec postgres -D "$PGDATA" -c listen_addresses="*" -c unix_socket_directories=/tmp "$@"
"""


def recipe_names() -> list[str]:
    """Every name that ``gantry base`` can make here."""
    return [*_NAMES, PYTHON, POSTGRES]


def find_recipe(name: Reference, release: Release | None = None) -> Recipe:
    """The recipe for a name. ``release`` is this machine's unless given. Raises ImageNotFound."""
    familiar = name.familiar
    if familiar in _NAMES:
        return _recipe(_NAMES[familiar], (), ("bash",))  # as on Docker Hub: no more than minbase
    if familiar == PYTHON:
        here = release or host_release()
        # Where Python's own release is unknown to us, bookworm is what every mirror has.
        suite = here.codename if here.codename in SUITES else "bookworm"
        packages = ("ca-certificates", "python3-minimal", "python3")
        return _recipe(suite, packages, ("python3",), python=True)
    if familiar == POSTGRES:
        return replace(
            _recipe("bookworm", ("postgresql-15",), ()),  # the suite whose version it is
            entrypoint=("sh", "-c", POSTGRES_START, "postgres"),
            user="postgres",
            exposed=("5432/tcp",),
            health=("CMD", "pg_isready", "--quiet", "--host=127.0.0.1"),
        )
    near = difflib.get_close_matches(familiar, recipe_names(), 3, 0.3) or recipe_names()
    raise ImageNotFound(
        f"There is no recipe for a base image named {familiar}.",
        hint=f"There are recipes for {', '.join(near)}.",
    )


def _recipe(
    suite: str, packages: tuple[str, ...], command: tuple[str, ...], *, python: bool = False
) -> Recipe:
    distribution, epoch = SUITES[suite]
    return Recipe(
        distribution=distribution,
        suite=suite,
        epoch=epoch,
        packages=packages,
        command=command,
        python=python,
    )
