"""docs/promotion.md, with alice as the approver that docs/people.md left."""

from __future__ import annotations

import re

from tests.walk.place import Said
from tests.walk.walking import Page, Walk, Way

AS_ALICE = {"GANTRY_TOKEN": lambda walk: walk.kept["alice"], "GANTRY_URL": "http://127.0.0.1:8000"}
# The program that the image has in the place of the page's.
SHELL = {"python -m shop.shell": "sh -c 'echo with $API_KEY'"}


def _newest(walk: Walk) -> str:
    return walk.kept["newest"]


def _one_waits(walk: Walk) -> None:
    walk.release("Fourth", "shop 4\n")
    _waits_again(walk)


def _waits_again(walk: Walk) -> None:
    name = _newest(walk)
    assert f"{name} waits for prod" in walk.sh(f"gantry promote shop {name} prod")


def _gone(walk: Walk, _: Said) -> None:
    assert "-run-" not in walk.sh("podman ps --all --format '{{.Names}}'")


def _remove(walk: Walk, said: Said) -> None:
    address = re.search(r"It answers on (\S+)\.$", said.text, re.MULTILINE)
    assert address
    assert walk.sh(f"curl -s {address[1]}/").startswith("shop")
    walk.sh(f"podman rm -f -t 0 {said.text.split()[-1]}")


PAGE = Page(
    "promotion.md",
    {
        "gantry promote shop v7 prod --dry-run": Way(
            before=lambda walk: walk.release("Third", "shop 3\n"),
            swap={"v7": _newest},
            says=r"(?s)^prod runs v2; v\d would take its place.*^  commit  \w{8} Third$"
            r".*srv/index.html$.*^  travel  [\d,]+ bytes to local$",
        ),
        "gantry promote shop v7 prod": Way(swap={"v7": _newest}, says=r"^v\d waits for prod"),
        "gantry approve shop v7 prod": Way(
            swap={"v7": _newest},
            env=AS_ALICE,
            says=r"^Approved: v\d is on its way to prod",
            then=lambda walk, _: walk.runs("shop", "prod", _newest(walk)),
        ),
        "gantry deployments --state waiting": Way(says=r"shop +prod +v\d +promotion +waiting"),
        "gantry deployments shop": Way(says=r"shop +qa +v\d +auto +succeeded"),
        "gantry env shop prod --memory-mib 512": Way(says="memory.mib +512"),
        "gantry policy shop prod": Way(says=r"(?s)may promote.*approvers +alice"),
        'gantry reject shop v7 prod -m "after the sale"': Way(
            before=_one_waits, swap={"v7": _newest}, env=AS_ALICE, says="after the sale"
        ),
        'gantry cancel shop@prod -m "too slow"': Way(
            before=_waits_again, env=AS_ALICE, says="too slow"
        ),
        "gantry rollback shop previous prod": Way(says="^v2 runs in prod"),
        'gantry stop-line shop -m "incident 12"': Way(says="^The line of shop is stopped"),
        "gantry resume-line shop": Way(says="^The line runs again"),
        "gantry env shop prod --set LEVEL=info": Way(says="LEVEL"),
        "gantry audit shop": Way(says="line.stop|stop"),
        "gantry run shop@prod": Way(until="listening", then=_gone),
        "gantry run shop@prod --env-file my.env --port 8081": Way(
            before=lambda walk: walk.place.write("/root/shop/my.env", "API_KEY=of ours\n"),
            until="listening",
            then=_gone,
        ),
        "gantry run shop@prod --env API_KEY -- python -m shop.shell": Way(
            swap=SHELL, env={"API_KEY": "a key of ours"}, says="^with a key of ours$", then=_gone
        ),
        # It forwards until it is ended: that ssh takes it is seen by what it makes of it.
        "ssh -N -L 5055:127.0.0.1:5055 HOST": Way(
            swap={"ssh": "ssh -G", "HOST": "qa1.example.org"}, says="^localforward 5055 "
        ),
        "gantry run shop@prod --detach": Way(says="^gantry-run-", then=_remove),
    },
)
