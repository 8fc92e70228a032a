"""Pushes that Git took and nobody has recorded yet: one small file each, in the repository.

The hooks write them (``hooks/pre-receive``, ``hooks/post-receive``):

``spool/PUSH.intent``  what the push asks for, on disk before any ref moves;
``spool/PUSH``         what it did move; it takes the intent's place.

A push killed between the two leaves an intent. Whether its refs moved is then read from the
repository itself. First line ``user NAME``, then Git's own ``OLD NEW REF`` lines.
"""

from __future__ import annotations

import logging
import re
import time
from dataclasses import dataclass
from pathlib import Path

from ciserver.repositories.errors import BadName
from ciserver.repositories.git import heads
from ciserver.repositories.names import check_sha

log = logging.getLogger(__name__)
INTENT = ".intent"
FOLDER = "spool"
PUSH_ID = re.compile(r"[0-9a-f]{16,64}")
GRACE = 30.0  # seconds in which a push may still be moving its refs
FORGOTTEN_AFTER = 3600.0  # seconds after which an intent whose refs never moved is dropped


@dataclass(frozen=True, slots=True)
class Update:
    """One ref moved from ``old`` to ``new``; all zeros is 'not there'."""

    old: str
    new: str
    ref: str


@dataclass(frozen=True, slots=True)
class Push:
    id: str
    user: str
    updates: tuple[Update, ...]
    path: Path

    @property
    def age(self) -> float:
        """Seconds since its refs moved."""
        try:
            return time.time() - self.path.stat().st_mtime
        except FileNotFoundError:
            return 0.0  # recorded in the meantime


def find(git_dir: Path, push_id: str) -> Push | None:
    """The finished push ``push_id`` if it still waits."""
    if not PUSH_ID.fullmatch(push_id):
        return None
    return _read(git_dir / FOLDER / push_id)


def waiting(git_dir: Path) -> list[Push]:
    """Every push that moved a ref and still waits, oldest first. Drops dead intents."""
    paths = (path for path in (git_dir / FOLDER).glob("[0-9a-f]*") if path.is_file())
    pushes = [_read(path) if path.suffix != INTENT else _judge(path, git_dir) for path in paths]
    return sorted(filter(None, pushes), key=lambda push: push.id)


def forget(push: Push) -> None:
    """Call after the commit that recorded all of ``push``."""
    push.path.unlink(missing_ok=True)
    push.path.with_name(push.id + INTENT).unlink(missing_ok=True)


def _judge(path: Path, git_dir: Path) -> Push | None:
    """An intent with those of its updates that are in force, once its push is surely over."""
    try:
        age = time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return None
    push = _read(path)
    if push is None or age < GRACE or path.with_name(push.id).exists():
        return None
    now = heads(git_dir)
    done = tuple(u for u in push.updates if now.get(u.ref, "0" * len(u.new)) == u.new)
    if done:
        return Push(push.id, push.user, done, path)
    if age > FORGOTTEN_AFTER:
        path.unlink(missing_ok=True)
    return None


def _read(path: Path) -> Push | None:
    try:
        text = path.read_text(errors="replace")
    except FileNotFoundError:
        return None
    try:
        # Only the newline: a branch's name may hold what str.splitlines takes for one (U+2028).
        first, *lines = text.removesuffix("\n").split("\n")
        return Push(path.stem, first.removeprefix("user "), tuple(map(_update, lines)), path)
    except (ValueError, BadName):
        # Kept for a person to look at, out of the way of every later round.
        log.exception("%s is no push; it is set aside", path)
        path.rename(path.with_name(f".broken-{path.name}"))
        return None


def _update(line: str) -> Update:
    """The ref is as it was pushed: whether it can be built is for the recorder to say."""
    old, new, ref = line.split(" ", 2)
    return Update(check_sha(old), check_sha(new), ref)
