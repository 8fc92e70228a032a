"""The golden cases: a folder each, with a context and what must come of it.

    <case>/context/       the build context, Dockerfile included
           build.json     how it is asked for (optional): target, build_args, secrets, modes
                          (files git cannot carry a mode for), folders (empty ones), archives,
                          hard links (name -> the file's other name), labels, web (name -> text;
                          served at the build argument WEB, with the archives), ssh (true: an agent)
           expected.json  what differs from the base, and the config; or
           error.txt      what the error says, with the line and a caret where there is one

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
import subprocess
import tarfile
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

CASES = Path(__file__).parents[1] / "cases/dockerfiles"
# capabilities(7), version 2: CAP_NET_BIND_SERVICE, permitted and effective.
_BIND_LOW_PORTS = bytes.fromhex("0100000200040000" + "00" * 12)
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
        return path.read_text().rstrip() if path.exists() else None

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
            (target / name).write_bytes(archive(Path(name)))
        for name, other in self.options.get("links", {}).items():
            (target / name).hardlink_to(target / other)
        for name, mode in self.options.get("modes", {}).items():
            (target / name).chmod(int(mode, 8))
        return target

    @property
    def build_args(self) -> dict[str, str]:
        return dict(self.options.get("build_args", {}))

    @contextmanager
    def web(self) -> Iterator[str]:
        """HOST:PORT of a server with the files of ``web``; empty where a case has none."""
        if "web" not in self.options:
            yield ""
            return
        files = {f"/{name}": text.encode() for name, text in self.options["web"].items()}
        files |= {f"/{n}": archive(Path(n)) for n in self.options.get("archives", ())}

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.end_headers()
                self.wfile.write(files[self.path])

            def do_HEAD(self) -> None:
                self.send_error(405)

            def log_message(self, *_: object) -> None:
                pass

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            yield f"127.0.0.1:{server.server_port}"
            server.shutdown()

    @contextmanager
    def keys(self) -> Iterator[dict[str, bytes]]:
        """Private keys for agents of the build, by the agents' ids."""
        if not self.options.get("ssh"):
            yield {}
            return
        with tempfile.TemporaryDirectory() as folder:
            key = Path(folder) / "key"
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key]
            subprocess.run(command, check=True)
            yield {"default": key.read_bytes()}


def all_cases() -> list[Case]:
    return [Case(path) for path in sorted(CASES.iterdir()) if path.is_dir()]


def write_expected(case: Case, image: dict[str, Any]) -> None:
    """Keep what an oracle made of a case, and say whether that is news."""
    text = json.dumps(image, indent=1, sort_keys=True) + "\n"
    said = case.expected.read_text() if case.expected.exists() else ""
    print(f"{case.name}: {'the same' if text == said else 'CHANGED' if said else 'new'}")
    case.expected.write_text(text)


def archive(name: Path) -> bytes:
    """A small tar with owners, modes, links and a folder; compressed by its suffix.

    That called ``special`` holds a FIFO and a file with a capability as well; that called
    ``implied`` holds nothing but files, and not the folders that they are in.
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for member, data in _MEMBERS.get(name.stem, _plain)():
            member.uid, member.gid, member.mtime = 1000, 50, 1_500_000_000
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    data = buffer.getvalue()
    return _COMPRESS[name.suffix](data) if name.suffix in _COMPRESS else data


def _plain() -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    for name, kind, mode, content in (
        ("in", tarfile.DIRTYPE, 0o750, ""),
        ("in/file", tarfile.REGTYPE, 0o640, "packed\n"),
        ("in/link", tarfile.SYMTYPE, 0o777, "file"),
        ("in/hard", tarfile.LNKTYPE, 0o640, "in/file"),
        ("run", tarfile.REGTYPE, 0o4755, "#!/bin/sh\n"),
    ):
        member = tarfile.TarInfo(name)
        member.type, member.mode = kind, mode
        if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
            member.linkname = content
        yield member, content.encode() if kind == tarfile.REGTYPE else b""


def _implied() -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    for name in ("closed/file", "tmp/file", "lib/file", "new/er/file"):
        member = tarfile.TarInfo(name)
        member.mode = 0o640
        yield member, b"packed\n"


def _special() -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    yield from _plain()
    pipe = tarfile.TarInfo("pipe")
    pipe.type, pipe.mode = tarfile.FIFOTYPE, 0o620
    yield pipe, b""
    capable = tarfile.TarInfo("capable")
    capable.mode = 0o755
    capable.pax_headers["SCHILY.xattr.security.capability"] = _BIND_LOW_PORTS.decode()
    yield capable, b"#!/bin/sh\n"


_MEMBERS = {"special": _special, "implied": _implied}
