"""docs/first-project.md: with every forge, as far as Gantry's side of it goes."""

from __future__ import annotations

from tests.walk.walking import ADDRESS, Page, Walk, Way

FORGES = {
    "github": "https://github.com/OWNER/shop.git",
    "gitlab": "https://gitlab.com/OWNER/shop.git",
    "gitea": "https://gitea.example.org/OWNER/shop.git",
    "forgejo": "https://codeberg.org/OWNER/shop.git",
    "bitbucket": "https://bitbucket.org/OWNER/shop.git",
    "bitbucket-server": "https://bitbucket.example.org/scm/OWNER/shop.git",
}
SECRET = r"^whsec_\S+\n$|^\S{32,}\n$"


def _by_ssh(walk: Walk) -> None:
    walk.sh("gantry new by-ssh --from git@HOST:OWNER/shop.git")


PAGE = Page(
    "first-project.md",
    {
        "gantry login http://127.0.0.1:8000": Way(
            given=lambda walk: walk.kept["token"] + "\n",
            says=rf"Logged in to {ADDRESS} as admin; kept in /root/.config/gantry/client.json",
        ),
        "gantry logs shop -f": Way(says="level low"),
        "gantry releases shop": Way(says=r"\bv1\b"),
        "gantry promote shop v1 prod": Way(
            before=lambda walk: walk.release("Second", "shop, once more\n"),
            swap={"v1": "v2"},
            says="^v2 runs in prod",
        ),
        "gantry status": Way(says=r"shop +prod +v2"),
        "gantry new shop": Way(swap={"shop": "stall"}, says="^Made stall"),
        **{
            f"gantry new shop --from {address}": Way(
                swap={"new shop": f"new at-{forge}"}, says=f"^Made at-{forge}"
            )
            for forge, address in FORGES.items()
        },
        "gantry hook-secret renew shop": [
            Way(swap={"shop": f"at-{forge}"}, says=SECRET) for forge in FORGES
        ],
        "gantry deliveries shop": Way(says="refs/heads/main|main"),
        "gantry hook-secret show shop": Way(
            swap={"shop": "at-github"}, says=rf"^Address: {ADDRESS}/hooks/"
        ),
        "gantry repository show shop": Way(says="protected branches"),
        "gantry tokens new laptop --write": Way(says=r"^gantry_\S+$"),
        "gantry repository set shop --default-branch master": Way(
            swap={"shop": "stall"}, says=r"protected branches +master"
        ),
        "gantry hook-secret test shop": Way(swap={"shop": "at-github"}, says="answered 20"),
        "gantry start shop": Way(says="^Started pipeline #"),
        "gantry repository key shop --new": Way(
            before=_by_ssh, swap={"shop": "by-ssh"}, says="^ssh-ed25519 "
        ),
        "gantry repository login shop NAME": Way(
            swap={"shop": "at-github"}, given="of ours\n", says="asked as NAME"
        ),
        "gantry statuses set shop FORGE OWNER/shop": Way(
            swap={"shop FORGE": "at-github github"}, given="of ours\n", says="github is told"
        ),
        "gantry hook-secret renew shop --file FILE": Way(
            before=lambda walk: walk.place.write("/root/FILE", "whsec_" + "QUFB" * 11 + "\n"),
            swap={"shop": "at-gitlab", "FILE": "/root/FILE"},
            says="whsec_",
        ),
        "gantry pulls list shop": Way(says="NUMBER +COMMIT"),
    },
)
