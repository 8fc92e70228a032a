"""Where ``exec`` has to start, and what it is told of the sandbox's state.

runc enters the user namespace first, and from there may not enter a network namespace that
belongs to the host's ("error executing setns process"; crun tries the others first). So for a
sandbox that joined a network made before it runc is started inside that network already, and is
shown a copy of its own state that has no word of it.

Both are given their state as a descriptor, for a path they would make, with all above it, where the
box has just been removed: a box without a record, which nobody removed again.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.host import OciRuntime
from runtime.process import Command

NETWORK = "NEWNET"
STATE = "state.json"


@dataclass(frozen=True, slots=True)
class Entrance:
    """``root`` is for the OCI runtime's --root; ``netns`` is where to start it, None for here."""

    root: Path
    netns: str | None = None

    def command(self, command: Command) -> Command:
        if self.netns is None:
            return command
        return Command(("nsenter", f"--net={self.netns}", "--", *command.args))


@contextmanager
def entrance(
    runtime: OciRuntime, id: str, oci_root: Path, config: dict[str, Any], copy: Path
) -> Iterator[Entrance]:
    """For the block, by the sandbox's ``config`` (config.json). ``copy`` is a path to make.

    Raises FileNotFoundError for a sandbox that has just ended.
    """
    namespaces = config.get("linux", {}).get("namespaces", ())
    netns = next((one.get("path") for one in namespaces if one["type"] == "network"), None)
    if runtime.name != "runc" or not netns:
        with _by_descriptor(oci_root) as root:
            yield Entrance(root)
    else:
        state = _without_network(oci_root / id / STATE)
        copy.mkdir(mode=0o700)
        try:
            (copy / id).mkdir(mode=0o700)
            (copy / id / STATE).write_text(state)
            with _by_descriptor(copy) as root:
                yield Entrance(root, netns)
        finally:
            shutil.rmtree(copy, ignore_errors=True)


def _without_network(file: Path) -> str:
    state = json.loads(file.read_text())
    own = state["config"]["namespaces"]
    state["config"]["namespaces"] = [one for one in own if one["type"] != NETWORK]
    state.get("namespace_paths", {}).pop(NETWORK, None)
    return json.dumps(state)


@contextmanager
def _by_descriptor(directory: Path) -> Iterator[Path]:
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield Path(f"/proc/{os.getpid()}/fd/{fd}")
    finally:
        os.close(fd)
