"""Pages about pipelines: what starts them, tests, webhooks."""

from __future__ import annotations

import json
from collections.abc import Callable

from tests.walk.commands import the_command
from tests.walk.place import Said
from tests.walk.shop import SLOW, UNIT
from tests.walk.walking import ADDRESS, Page, Walk, Way

FORKS_COMMIT = "ab" * 20
PULL = {
    "action": "opened",
    "number": 7,
    "pull_request": {
        "title": "Say more",
        "head": {"sha": FORKS_COMMIT, "ref": "topic", "repo": {"id": 2}},
        "base": {"sha": "cd" * 20, "ref": "main", "repo": {"id": 1}},
    },
    "sender": {"login": "mallory"},
}


def _fails(walk: Walk) -> None:
    walk.push("Fails", {"root/srv/unit.sh": UNIT + "exit 1\n"})
    walk.ended("shop", "failed")


def _runs(walk: Walk) -> None:
    walk.push("Slow", {"root/srv/unit.sh": SLOW})
    walk.wait("a pipeline that runs", lambda: walk.newest("shop")["state"] == "running")


def _cancelled(walk: Walk, _: Said) -> None:
    walk.ended("shop", "cancelled")
    walk.push("Quick again", {"root/srv/unit.sh": UNIT})
    walk.passed("shop")


def _number(walk: Walk) -> str:
    return str(walk.newest("shop")["number"])


STARTING = Page(
    "starting.md",
    {
        "gantry start shop --inputs": Way(says="level +choice +low +low, high"),
        "gantry start shop -i level=high": Way(
            says="^Started pipeline #",
            then=lambda walk, _: walk.wait(
                "its input", lambda: "level high" in walk.place.type("gantry logs shop").text
            ),
        ),
        "gantry start shop --ref v1.2": Way(
            before=lambda walk: walk.sh("git tag v1.2 && git push -q gantry v1.2"),
            says="^Started pipeline #",
        ),
        "gantry schedules": Way(says=r"shop +0 3 \* \* 1-5"),
        "gantry rerun PROJECT": Way(
            before=_fails, says=r"^Pipeline #\d+ of shop is being run again"
        ),
        "gantry cancel PROJECT": Way(
            before=_runs, says=r"^Pipeline #\d+ of shop is being cancelled", then=_cancelled
        ),
    },
    names={"PROJECT": "shop"},
)
TESTS = Page(
    "tests.md",
    {
        "gantry coverage shop": Way(says=r"app.py +2 +50.0%"),
        "gantry coverage shop 12": Way(swap={"12": _number}, says="50.0 % of lines ran"),
        "gantry rerun PROJECT --failed": Way(
            before=_fails, then=lambda walk, _: walk.ended("shop", "failed")
        ),
        "gantry artifacts list PROJECT": Way(says="unit +tmp/report.txt|report.txt"),
        "gantry artifacts download PROJECT": Way(says=r"unit/\S*report.txt  \d+ bytes"),
    },
    names={"PROJECT": "shop"},
)


def _secret(project: str) -> Callable[[Walk], None]:
    def renew(walk: Walk) -> None:
        walk.kept["secret"] = walk.sh(f"gantry hook-secret renew {project}").strip()

    return renew


def _pull_request(walk: Walk) -> None:
    _secret("at-github")(walk)
    walk.place.write("/tmp/pull.json", json.dumps(PULL))
    sign = f'openssl dgst -sha256 -hmac "{walk.kept["secret"]}" -r </tmp/pull.json | cut -d" " -f1'
    said = walk.sh(
        f'curl -s -w "%{{http_code}}" -H "X-Hub-Signature-256: sha256=$({sign})"'
        ' -H "X-GitHub-Event: pull_request" -H "X-GitHub-Delivery: 7"'
        " -H 'Content-Type: application/json' --data-binary @/tmp/pull.json"
        f" {ADDRESS}/hooks/github/at-github/"
    )
    assert said.endswith(("200", "202")), said
    walk.wait("the pull request", lambda: walk.ask("gantry pulls list at-github"))


GENERIC = {
    "GANTRY_URL": ADDRESS,
    "PROJECT": "shop",
    "FULL-SHA": lambda walk: walk.sh("git rev-parse HEAD").strip(),
}
WEBHOOKS = Page(
    "webhooks.md",
    {
        the_command("webhooks.md", "body="): Way(
            before=_secret("shop"),
            swap=GENERIC,
            env={"SECRET": lambda walk: walk.kept["secret"]},
            says=r'"verdict": "accepted"',
        ),
        "gantry hook-secret renew PROJECT": Way(swap={"PROJECT": "shop"}, says=r"^\S{32,}$"),
        "gantry hook-secret end-old PROJECT": Way(
            swap={"PROJECT": "shop"}, says="^Of shop only the present webhook secret counts"
        ),
        "gantry pulls approve PROJECT NUMBER COMMIT": Way(
            before=_pull_request,
            swap={"PROJECT": "at-github", "NUMBER": "7", "COMMIT": FORKS_COMMIT},
            says=f"^{FORKS_COMMIT[:12]} of pull request 7 is being built",
        ),
        "gantry deliveries --find WORDS": Way(swap={"WORDS": "mallory"}, says="at-github"),
        "gantry redeliver ID": Way(
            swap={"ID": lambda walk: str(walk.ask("gantry deliveries shop")[0]["id"])},
            says=r"^Delivery \d+ is recorded once more",
        ),
        "gantry statuses set PROJECT FORGE OWNER/NAME": Way(
            swap={"PROJECT FORGE": "at-gitea gitea"},
            given="of ours\n",
            says="gitea is told of every pipeline of at-gitea",
        ),
    },
)
