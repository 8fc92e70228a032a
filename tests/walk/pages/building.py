"""docs/builds.md and docs/gantry-yml.md: without a service."""

from __future__ import annotations

from tests.walk.place import Said
from tests.walk.walking import Page, Walk, Way

# A step that signs with the agent, of the reader's own image.
DOCKERFILE = """FROM scratch
COPY root/ /
RUN --mount=type=ssh --network=none test -S "$SSH_AUTH_SOCK"
"""


def _folders(walk: Walk) -> None:
    walk.sh("mkdir -p /root/.ssh && ssh-keygen -q -t ed25519 -N '' -f /root/.ssh/id_ed25519")
    walk.sh("cp -a /root/shop /srv/app && git clone -q --bare /root/shop /srv/repo.git")
    walk.place.write("/srv/app/Dockerfile", DOCKERFILE)


def _a_layout(walk: Walk, _: Said) -> None:
    assert "imageLayoutVersion" in walk.place.path("/tmp/app/oci-layout").read_text()


BUILDS = Page(
    "builds.md",
    {
        ".venv/bin/python -m builders build --ssh default=/root/.ssh/id_ed25519 /srv/app": Way(
            before=_folders, says=r"sha256:[0-9a-f]{64}"
        ),
        ".venv/bin/python -m builders build -t app:dev /srv/app": Way(
            before=lambda walk: walk.sh("cp /root/shop/Dockerfile /srv/app/Dockerfile"),
            says=r"sha256:[0-9a-f]{64}",
        ),
        ".venv/bin/python -m builders build --output oci:/tmp/app '/srv/repo.git#main'": Way(
            then=_a_layout
        ),
        ".venv/bin/python -m builders images": Way(says=r"app:dev +[0-9a-f]{12} +\d{4}-"),
        ".venv/bin/python -m builders prune --older-than 30d --max-size 20g": Way(
            says=r"^Removed \d+ images, \d+ cached steps.*MiB are left"
        ),
        ".venv/bin/python -m builders --help": Way(says="remove what was not used for long"),
        ".venv/bin/python -m builders build --platform linux/arm64 /srv/app": Way(
            says=r"sha256:[0-9a-f]{64}"
        ),
        "./gantry base": Way(says=r"(?s)debian:bookworm-slim.*gantry/postgres:15"),
    },
)
GANTRY_YML = Page("gantry-yml.md", {"gantry lint": Way(says=r"gantry\.yml")})
