"""The namespaces of a sandbox and its id mapping: fragments of config.json; pure.

All seven kinds always (namespaces(7)); only the network namespace can be one made
beforehand, or, for administrators' own tools, the host's.
"""

from __future__ import annotations

from pathlib import Path

from runtime.spec import IdRange, Network

ALWAYS = ("pid", "ipc", "uts", "mount", "user", "cgroup")


def namespaces(network: Network, netns: Path | None) -> list[dict[str, str]]:
    """``linux.namespaces``. ``netns`` is the network namespace to join, None for a fresh one."""
    kinds: list[dict[str, str]] = [{"type": kind} for kind in ALWAYS]
    if netns is not None:
        kinds.append({"type": "network", "path": str(netns)})
    elif network is not Network.HOST:
        kinds.append({"type": "network"})
    return kinds


def id_mappings(ids: IdRange) -> list[dict[str, int]]:
    """``linux.uidMappings`` and ``gidMappings``: one range; host id 0 is never in it."""
    return [{"containerID": 0, "hostID": ids.base, "size": ids.size}]
