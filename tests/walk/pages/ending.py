"""docs/ending.md: of a project and an environment that are made for it."""

from __future__ import annotations

from tests.walk.walking import Page, Way

OLD = {"PROJECT": "old"}
STAGE = {"PROJECT@ENV": "older@last-stage"}


PAGE = Page(
    "ending.md",
    {
        "gantry archive PROJECT": Way(
            before=lambda walk: walk.sh("gantry new old"), swap=OLD, says="only read"
        ),
        "gantry restore PROJECT": Way(swap=OLD, says="open again"),
        "gantry delete PROJECT --confirm PROJECT": Way(swap=OLD, says="deleted on"),
        "gantry delete PROJECT@ENV --confirm PROJECT@ENV": Way(
            before=lambda walk: walk.sh("gantry new older && gantry new-env older last-stage"),
            swap=STAGE,
            says="is being removed",
        ),
    },
)
