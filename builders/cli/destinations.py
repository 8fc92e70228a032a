"""Where ``--output`` puts an image: ``oci:FOLDER``, ``docker:FILE``, or as docker spells it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from builders.errors import UserError
from builders.images.reference import Reference
from builders.images.store import Image
from builders.layouts import export_archive, export_layout, export_layout_archive

_HINT = "Write oci:FOLDER, docker:FILE, type=oci,dest=FILE or type=docker,dest=FILE."


class Destination(NamedTuple):
    """``kind`` is oci or docker. An OCI layout is a ``folder`` or an archive of one."""

    kind: str
    path: Path
    folder: bool


def destination_of(text: str) -> Destination:
    """What ``--output`` asks for. As docker has it, ``type=oci`` is an archive unless
    ``tar=false``. Raises UserError."""
    if text.startswith("type=") or ",type=" in text:
        fields = dict(part.partition("=")[::2] for part in text.split(","))
        kind, path = fields.pop("type"), fields.pop("dest", "")
        tar = fields.pop("tar", "true") if kind == "oci" else "true"
        known = not fields and tar in {"true", "false"}
        folder = tar == "false"
    else:
        kind, _, path = text.partition(":")
        known, folder = True, kind == "oci"
    if not known or kind not in {"oci", "docker"} or path in {"", "-"}:
        raise UserError(f"--output {text!r} is not known.", hint=_HINT, code="cli.flag")
    return Destination(kind, Path(path), folder)


def export(destination: Destination, image: Image, names: Sequence[Reference]) -> None:
    """Write the image there. Raises OSError."""
    if destination.kind == "docker":
        export_archive(image, destination.path, names)
    elif destination.folder:
        export_layout(image, destination.path, names)
    else:
        export_layout_archive(image, destination.path, names)
