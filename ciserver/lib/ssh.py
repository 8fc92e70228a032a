"""The options that every ssh of the service has, whatever it is for.

No configuration of this machine, no agent and no other key than the one that is named, nothing
forwarded or run here, and an end when the other side falls silent. ``builders.remote.git`` says the
same for builds, which do not know this package; a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Mapping

OPTIONS: Mapping[str, str] = {
    "BatchMode": "yes",
    "CanonicalizeHostname": "no",
    "CheckHostIP": "no",
    "ForwardAgent": "no",
    "GlobalKnownHostsFile": "/dev/null",
    "HashKnownHosts": "no",
    "IdentitiesOnly": "yes",
    "IdentityAgent": "none",
    "PermitLocalCommand": "no",
    "PreferredAuthentications": "publickey",
    "ProxyCommand": "none",
    "ServerAliveCountMax": "3",
    "ServerAliveInterval": "30",
    "UpdateHostKeys": "no",
}


def command(options: Mapping[str, object]) -> list[str]:
    """``ssh`` and its options: ``options`` over those above."""
    every = {**OPTIONS, **options}
    return ["ssh", "-F", "none", *(w for n, v in every.items() for w in ("-o", f"{n}={v}"))]
