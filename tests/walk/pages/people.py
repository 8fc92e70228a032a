"""docs/people.md. It leaves alice as the one who must approve what goes to prod."""

from __future__ import annotations

from tests.walk.place import Said
from tests.walk.walking import ADDRESS, Page, Walk, Way

LINK = rf"^{ADDRESS}/\S+$"
NEW_PASSWORD = "quite another horse of oats"


def _alice_and_dora(walk: Walk) -> None:
    walk.sign_up("alice")
    walk.sh("gantry members set shop alice maintainer && gantry members set shop dora maintainer")


def _changed(walk: Walk, _: Said) -> None:
    walk.kept["password"] = NEW_PASSWORD


PAGE = Page(
    "people.md",
    {
        "gantry users new dora": Way(says=LINK),
        "gantry members list hello": Way(says=r"admin +owner"),
        "gantry members set hello dora developer": Way(says="dora"),
        "gantry policy hello prod --promoter dora --approver alice --approvals 1": Way(
            before=_alice_and_dora, says="alice"
        ),
        "gantry members remove hello dora": Way(says="^dora has no role of their own in shop"),
        "gantry teams new crew": Way(says=r"^Made the team crew\.$"),
        "gantry teams add crew dora": Way(says="^dora is in crew"),
        "gantry members set hello crew developer --team": Way(
            says="^crew is now developer of shop"
        ),
        "gantry users disable dora": Way(says="^dora can sign in no more"),
        "gantry account sessions": Way(says="NAME +SIGNED IN +FROM +BROWSER"),
        "gantry users reset dora": Way(says=LINK),
        "gantry account password": Way(
            given=lambda walk: f"{walk.kept['password']}\n{NEW_PASSWORD}\n", then=_changed
        ),
        "gantry tokens new 'deploy script' --write --days 14": Way(says=r"^gantry_\S+$"),
        "gantry audit": Way(says=r"account\.sign-in "),
        "gantry admin": Way(says="^Password  ", then=lambda walk, _: walk.take_token()),
    },
    names={"hello": "shop"},
)
