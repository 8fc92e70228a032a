"""docs/hosts.md and docs/day-two.md, with a second machine at the names of the pages."""

from __future__ import annotations

from tests.walk.place import Said
from tests.walk.walking import Page, Walk, Way

ROOT = {"deploy@": "root@"}  # limits take cgroup v2, or root
HOST_KEY = "/etc/ssh/ssh_host_ed25519_key.pub"


def _allow(walk: Walk, said: Said) -> None:
    [line] = [row for row in said.text.splitlines() if row.startswith("ssh-ed25519 ")]
    walk.other.allow(line)


def _new_key(walk: Walk) -> None:
    walk.other.new_host_key()
    assert walk.place.type("gantry hosts check qa1").code == 1
    walk.kept["fingerprint"] = walk.other.sh(f"ssh-keygen -lf {HOST_KEY}").split()[1]


def _two_hosts(walk: Walk) -> None:
    """Where containers move between."""
    line = walk.sh("gantry hosts add prod3 root@qa1.example.org").splitlines()[-1]
    walk.other.allow(line)
    walk.sh("gantry hosts check prod3")
    walk.runs("shop", "prod")


def _sent_on_to_https(walk: Walk, _: Said) -> None:
    ask = "curl -s -o /dev/null -w '%{redirect_url}' -H 'Host: shop.example.org' http://127.0.0.1/"
    there = "https://shop.example.org/"
    walk.wait("the name", lambda: walk.place.type(ask).text == there)


def _has_a_certificate(walk: Walk, _: Said) -> None:
    authority = "/var/lib/gantry/caddy/caddy/pki/authorities/local/root.crt"
    ask = f"curl -s --cacert {authority} --resolve shop.example.org:443:127.0.0.1"
    walk.wait(
        "its certificate",
        lambda: walk.place.type(f"{ask} https://shop.example.org/").text.startswith("shop"),
    )


HOSTS = Page(
    "hosts.md",
    {
        "gantry hosts add qa1 deploy@qa1.example.org": Way(says="^ssh-ed25519 ", then=_allow),
        "gantry hosts prepare qa1": Way(says="engine +podman"),
        "gantry hosts check qa1": Way(says=r"(?s)engine +podman.*clock.*registry.*traffic"),
        "gantry hosts list": Way(says="qa1 +ssh +root@qa1.example.org"),
        "gantry hosts accept-key qa1 SHA256:...": Way(
            before=_new_key,
            swap={"SHA256:...": lambda walk: walk.kept["fingerprint"]},
            says=r"(?s)engine +podman.*traffic",
        ),
        "gantry hosts remove qa1": Way(says="^qa1 is forgotten"),
        "gantry move shop@prod prod3": Way(
            before=_two_hosts, says=r"prod3 serves v\d of shop@prod in place of local"
        ),
        "gantry move shop@prod prod3 --host prod1": Way(
            swap={"prod3": "local", "prod1": "prod3"}, says=r"local serves v\d of shop@prod"
        ),
        "gantry domains shop prod --add shop.example.org": Way(
            says="shop.example.org", then=_sent_on_to_https
        ),
        "gantry domains shop prod --remove shop.example.org": Way(
            says="^prod of shop has no domains"
        ),
        "gantry domains shop prod --https internal": Way(
            says=r"shop.example.org +internal", then=_has_a_certificate
        ),
    },
    names=ROOT,
)


def _there(walk: Walk) -> None:
    walk.place.write("/root/shop/motd", "of today\n")


def _serves(walk: Walk, _: Said) -> None:
    walk.runs("shop", "qa")


DAY_TWO = Page(
    "day-two.md",
    {
        "gantry ps shop@qa": Way(says=r"(?s)HOST +CONTAINER +RELEASE.*local.*v\d +running"),
        "gantry logs shop@qa --follow --since 10m": Way(until="listening"),
        "gantry attach shop@qa": Way(after=2, then=_serves),  # Ctrl-C leaves it running
        "gantry exec shop@qa -- ls -l /srv": Way(says="index.html"),
        # The page's is a program of the reader's own image.
        "gantry exec shop@qa -i -- psql": Way(
            swap={"psql": "cat"}, given="select 1\n", says="^select 1$"
        ),
        "gantry cp shop@qa:/srv/report ./reports": Way(
            then=lambda walk, _: walk.sh("grep -qx 'a report' reports/report")
        ),
        "gantry cp ./motd shop@qa:/etc": Way(
            before=_there,
            then=lambda walk, _: walk.sh(
                "gantry exec shop@qa -- cat /etc/motd | grep -qx 'of today'"
            ),
        ),
        "gantry stop shop@qa": Way(says=r"^local: v\d is stopped$"),
        "gantry start shop@qa": Way(says=r"^local: v\d serves$"),
        "gantry move shop@qa qa2": Way(swap={"qa2": "prod3"}, says=r"prod3 serves v\d of shop@qa"),
        "gantry restart shop@qa": Way(says=r"^prod3: v\d serves$"),
    },
)
