"""Where the service is and who we are: $GANTRY_URL and $GANTRY_TOKEN, else a file of one's own."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from ciserver.cli.errors import CliError, Exit


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    url: str
    token: str


def settings_file() -> Path:
    configured = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(configured) / "gantry" / "client.json"


def load() -> Settings:
    """Raises CliError when nobody has logged in."""
    kept = _kept()
    url = os.environ.get("GANTRY_URL") or kept.get("url", "")
    token = os.environ.get("GANTRY_TOKEN") or kept.get("token", "")
    if not url or not token:
        raise CliError(
            "You are not logged in.",
            next_step="Type 'gantry login URL', or on the service's own machine 'gantry admin'.",
            exit_code=Exit.NOT_ALLOWED,
        )
    return Settings(url=url.rstrip("/"), token=token)


def save(settings: Settings) -> Path:
    """Writes the file, readable by its owner alone."""
    file = settings_file()
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    part = file.with_suffix(".part")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
        json.dump(asdict(settings), out)
    part.rename(file)
    return file


def _kept() -> dict[str, str]:
    try:
        kept = json.loads(settings_file().read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise CliError(
            f"{settings_file()} cannot be read: {error}.",
            next_step="Remove it and log in again: gantry login URL",
            exit_code=Exit.NOT_ALLOWED,
        ) from None
    return kept if isinstance(kept, dict) else {}
