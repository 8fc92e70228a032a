"""The golden cases: a folder each, with a context and what must come of it.

    <case>/context/       the build context, Dockerfile included
           build.json     how it is asked for (optional): target, build_args, secrets, modes
                          (files git cannot carry a mode for), folders (empty ones), archives
           expected.json  what differs from the base, and the config; or
           error.txt      what the error says

``oracle`` in build.json says where the expectation came from: docker's BuildKit
(the default, see record.py), "buildkit" for a newer one (record_buildkit.py) where that does
not know the syntax, or "hand".
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import shutil
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CASES = Path(__file__).parents[1] / "cases/dockerfiles"
_COMPRESS = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}


@dataclass(frozen=True)
class Case:
    folder: Path

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def options(self) -> dict[str, Any]:
        path = self.folder / "build.json"
        return json.loads(path.read_text()) if path.exists() else {}

    @property
    def error(self) -> str | None:
        path = self.folder / "error.txt"
        return path.read_text().strip() if path.exists() else None

    @property
    def expected(self) -> Path:
        return self.folder / "expected.json"

    @property
    def dockerfile(self) -> str:
        return (self.folder / "context/Dockerfile").read_text()

    def lay_out(self, target: Path) -> Path:
        """A copy of the context with the modes, folders and archives that git cannot hold."""
        shutil.copytree(self.folder / "context", target, symlinks=True)
        for path in [target, *target.rglob("*")]:
            if not path.is_symlink():
                path.chmod(0o755 if path.is_dir() else 0o644)
        for name in self.options.get("folders", ()):
            (target / name).mkdir(parents=True)
        for name in self.options.get("archives", ()):
            (target / name).write_bytes(archive(Path(name).suffix))
        for name, mode in self.options.get("modes", {}).items():
            (target / name).chmod(int(mode, 8))
        return target


def all_cases() -> list[Case]:
    return [Case(path) for path in sorted(CASES.iterdir()) if path.is_dir()]


def archive(suffix: str) -> bytes:
    """A small tar with owners, modes, links and a folder; compressed by its suffix."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, kind, mode, content in (
            ("in", tarfile.DIRTYPE, 0o750, ""),
            ("in/file", tarfile.REGTYPE, 0o640, "packed\n"),
            ("in/link", tarfile.SYMTYPE, 0o777, "file"),
            ("in/hard", tarfile.LNKTYPE, 0o640, "in/file"),
            ("run", tarfile.REGTYPE, 0o4755, "#!/bin/sh\n"),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.mode, member.uid, member.gid = kind, mode, 1000, 50
            member.mtime = 1_500_000_000
            data = content.encode() if kind == tarfile.REGTYPE else b""
            member.size = len(data)
            if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
                member.linkname = content
            tar.addfile(member, io.BytesIO(data))
    data = buffer.getvalue()
    return _COMPRESS[suffix](data) if suffix in _COMPRESS else data
