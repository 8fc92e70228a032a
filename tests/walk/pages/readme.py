"""README.md: from nothing to production."""

from __future__ import annotations

from tests.walk.place import Said
from tests.walk.shop import write_it
from tests.walk.walking import ADDRESS, Page, Walk, Way, proved


def _serves(walk: Walk, _: Said) -> None:
    [prod] = [row for row in walk.ask("gantry status") if row["name"] == "prod"]
    assert walk.sh(f"curl -s http://127.0.0.1:{prod['port']}/") == "shop\n"


PAGE = Page(
    "README.md",
    {
        "./gantry new shop": Way(cwd="/root/gantry", says=rf"^Made shop: {ADDRESS}/projects/shop/"),
        "git remote add gantry http://127.0.0.1:8000/git/shop.git": Way(
            then=proved(f"git remote get-url gantry | grep -qx {ADDRESS}/git/shop.git")
        ),
        "git push gantry main": Way(says=rf"{ADDRESS}/projects/shop/pipelines/1/"),
        "./gantry logs shop -f": Way(cwd="/root/gantry", says="level low"),
        "./gantry promote shop v1 prod": Way(
            cwd="/root/gantry",
            before=lambda walk: walk.runs("shop", "qa", "v1"),
            says=r"^v1 runs in prod  \(sha256:[0-9a-f]{64}\)$",
            then=_serves,
        ),
        "./gantry --help": Way(says="Exit codes: 0 done"),
    },
    before=write_it,
    leaves=["./gantry up", "git push -o wait"],  # to docs/operations.md and docs/repositories.md
)
