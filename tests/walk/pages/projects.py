"""Pages about one project's settings: repositories, secrets, registry, the API, security."""

from __future__ import annotations

import json
from collections.abc import Callable

from tests.walk.commands import the_command
from tests.walk.place import Said
from tests.walk.walking import ADDRESS, Page, Walk, Way, proved

# Where pages have addresses of the world.
HOOK = "http://127.0.0.1:9100/hook"


def _read_images(walk: Walk) -> None:
    """Their layers are looked through by a worker, seconds after they came."""

    def read() -> bool:
        rows = walk.ask("gantry images org.example.team=greeters")
        walk.kept["images"] = json.dumps([row["id"] for row in rows])
        return len(rows) > 1

    walk.wait("images that were read", read)


def _image(place: int) -> Callable[[Walk], str]:
    return lambda walk: str(json.loads(walk.kept["images"])[place])


REPOSITORIES = Page(
    "repositories.md",
    {
        "gantry repository set shop --protect-branch 'release/*' --protect-tag 'v*'"
        " --push-role maintainer": Way(says=r"(?s)main release/\*.*v\*.*maintainer"),
        "gantry repository set shop --protect-tag none": Way(says="protected tags +-"),
        "gantry repository set shop --max-push-mib 200 --max-push-refs 50": Way(
            says="200 MiB, 50 refs"
        ),
        "git push -o wait": Way(
            before=lambda walk: walk.sh("git commit -q --allow-empty -m Watched"),
            swap={"wait": "wait gantry HEAD:main"},
            says=r"pipeline #\d+ PASSED",
        ),
        "gantry repository key PROJECT --new": Way(swap={"PROJECT": "by-ssh"}, says="^ssh-ed25519"),
        "gantry repository forget-host PROJECT": Way(
            swap={"PROJECT": "by-ssh"}, says="^The next fetch pins the key"
        ),
        "git config credential.helper store": Way(
            then=proved("git config --local credential.helper | grep -qx store")
        ),
        "gantry repository login PROJECT NAME": Way(
            swap={"PROJECT": "at-gitlab"}, given="of ours\n", says="asked as NAME"
        ),
    },
)
SECRETS = Page(
    "secrets.md",
    {
        "gantry secrets set PROJECT API_TOKEN": Way(given="of ours", says="has the secret"),
        "gantry secrets set PROJECT DEPLOY_KEY --file id_ed25519": Way(
            before=lambda walk: walk.sh("ssh-keygen -q -t ed25519 -N '' -f /root/id_ed25519"),
            cwd="/root",
            says="^shop has the secret DEPLOY_KEY",
        ),
        "gantry secrets remove PROJECT API_TOKEN": Way(says="^shop has no secret API_TOKEN"),
        "gantry secrets list PROJECT": Way(says=r"(?s)API_TOKEN.*DEPLOY_KEY"),
        "gantry secrets set PROJECT NAME --env prod": Way(
            given="of ours", says="^prod of shop has the secret NAME"
        ),
    },
    names={"PROJECT": "shop"},
)
REGISTRY = Page(
    "registry.md",
    {
        "podman login --tls-verify=false --username admin 127.0.0.1:5055": Way(
            # There is no terminal that it could ask at.
            swap={"--username admin": "--username admin --password-stdin"},
            given=lambda walk: walk.kept["token"],
            says="Login Succeeded",
        ),
        "podman pull --tls-verify=false 127.0.0.1:5055/shop:COMMIT": Way(
            swap={"COMMIT": lambda walk: walk.sh("git rev-parse HEAD").strip()},
            says=r"^[0-9a-f]{64}$",
            then=lambda walk, said: walk.sh(f"podman image exists {said.text.split()[-1]}"),
        ),
        "gantry images org.example.team=greeters": Way(
            before=_read_images, says=r"ID +DIGEST +SIZE"
        ),
        "gantry image 12": Way(swap={"12": _image(0)}, says="COPY root/srv /srv"),
        "gantry image 12 --against 9": Way(
            swap={"12 --against 9": lambda walk: f"{_image(0)(walk)} --against {_image(-1)(walk)}"},
            says="srv/index.html",
        ),
        "gantry find hello prod": Way(swap={"hello": "shop"}, says="prod"),
    },
)


def _listen(walk: Walk) -> None:
    """Somebody who takes a message."""
    answer = r"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"
    walk.place.machine.sh(
        f"printf '{answer}' | timeout 60 busybox nc -l -p 9100 >/tmp/message 2>&1 &"
    )


def _was_told(walk: Walk, _: Said) -> None:
    told = walk.place.path("/tmp/message")
    walk.wait("a message", lambda: "test.ping" in told.read_text(), 60)
    assert "webhook-signature: v1," in told.read_text().lower()


API = Page(
    "api.md",
    {
        "gantry webhooks add PROJECT https://example.org/hook": Way(
            swap={"https://example.org/hook": HOOK}, says="^whsec_"
        ),
        "gantry webhooks test PROJECT 1": Way(before=_listen, then=_was_told),
    },
    names={"PROJECT": "shop"},
)
SECURITY = Page(
    "security.md",
    {
        "gantry audit PROJECT": Way(swap={"PROJECT": "shop"}, says="secret"),
        "gantry users disable NAME": Way(swap={"NAME": "dora"}, says="^dora can sign in no more"),
        the_command("security.md", "cd /root/gantry && .venv/bin/python manage.py verify"): Way(
            says=r"^\d+ entries, all as they were written"
        ),
        "gantry hook-secret renew PROJECT --drop-old": Way(
            swap={"PROJECT": "at-forgejo"}, says=r"^\S{32,}$"
        ),
    },
)
MONITORING = Page("monitoring.md", {"gantry tokens new prometheus": Way(says=r"^gantry_\S+$")})
CLI = Page(
    "cli.md",
    {
        "gantry login https://ci.example": Way(
            swap={"https://ci.example": ADDRESS},
            given=lambda walk: walk.kept["token"] + "\n",
            says="Logged in",
        ),
        "gantry completion bash >~/.local/share/bash-completion/completions/gantry": Way(
            before=lambda walk: walk.sh("mkdir -p ~/.local/share/bash-completion/completions"),
            then=lambda walk, _: walk.sh(
                "bash -n ~/.local/share/bash-completion/completions/gantry"
            ),
        ),
    },
)
