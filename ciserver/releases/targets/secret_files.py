"""Secrets of an environment as files of its containers: what the engine's ``cp`` reads. Pure.

Both engines unpack it into the container that is made and not started yet. It stays with the
container, which the engine starts again after a crash or a reboot without asking us; there it is
where the variables are too, in the engine's own storage, which is root's.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping

FOLDER = "run/secrets"  # from the container's root


def archive(values: Mapping[str, str]) -> bytes:
    """A tar, to be unpacked at the root. Whichever user the container runs as may read them."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        folder = tarfile.TarInfo(FOLDER)
        folder.type, folder.mode = tarfile.DIRTYPE, 0o755
        tar.addfile(folder)
        for name, value in values.items():
            data = value.encode()
            entry = tarfile.TarInfo(f"{FOLDER}/{name}")
            entry.size, entry.mode = len(data), 0o444
            tar.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def fits_a_variable(value: str) -> bool:
    """What a variable can hold: one line. All others are files alone."""
    return not any(sign in value for sign in "\n\r\0")
