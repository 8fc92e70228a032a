"""A Git host on loopback: ``git http-backend`` behind HTTP, and a repository for it."""

from __future__ import annotations

import os
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

ENV = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    **{
        f"GIT_{who}_{what}": text
        for who in ("AUTHOR", "COMMITTER")
        for what, text in (
            ("NAME", "alice"),
            ("EMAIL", "alice@example.com"),
            ("DATE", "2024-01-01T00:00:00Z"),
        )
    },
}


def git(folder: Path, *args: str) -> str:
    done = subprocess.run(
        ["git", *args], cwd=folder, env=ENV, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def make_repository(root: Path) -> tuple[Path, str]:
    """``app.git`` with a branch main, tags v1 (annotated) and light, and a second branch."""
    work = root / "work"
    work.mkdir(parents=True)
    git(work, "init", "-q", "-b", "main")
    for name, text in {
        "README": "hello\n",
        "docs/guide.md": "guide\n",
        "run.sh": "#!/bin/sh\n",
    }.items():
        path = work / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    (work / "run.sh").chmod(0o755)
    (work / "link").symlink_to("README")
    (work / "out").symlink_to("/etc")
    (work / ".dockerignore").write_text("README\n")
    git(work, "add", "-A")
    git(work, "commit", "-q", "-m", "first")
    git(work, "tag", "-a", "v1", "-m", "one")
    git(work, "tag", "light")
    first = git(work, "rev-parse", "HEAD")
    git(work, "checkout", "-q", "-b", "team/next")
    (work / "README").write_text("next\n")
    git(work, "commit", "-q", "-a", "-m", "second")
    git(work, "checkout", "-q", "main")
    git(root, "clone", "-q", "--bare", str(work), "app.git")
    return root / "app.git", first


class GitHost:
    """Serves the repositories below ``root``; ``asked`` holds (path, Authorization header)."""

    def __init__(self, root: Path) -> None:
        self.asked: list[tuple[str, str | None]] = []
        host = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.0"

            def do_GET(self) -> None:
                host.asked.append((self.path, self.headers.get("Authorization")))
                if self.path.startswith("/moved.git"):
                    self.send_response(302)
                    self.send_header("Location", "/app.git" + self.path.removeprefix("/moved.git"))
                    self.end_headers()
                    return
                if self.path.startswith("/private.git"):
                    self.send_response(401)
                    self.send_header("WWW-Authenticate", "Basic")
                    self.end_headers()
                    return
                self._backend()

            do_POST = do_GET

            def _backend(self) -> None:
                parts = urlsplit(self.path)
                size = int(self.headers.get("Content-Length") or 0)
                env = {
                    **ENV,
                    "GIT_PROJECT_ROOT": str(root),
                    "GIT_HTTP_EXPORT_ALL": "1",
                    "PATH_INFO": parts.path,
                    "QUERY_STRING": parts.query,
                    "REQUEST_METHOD": self.command,
                    "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                    "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
                    "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
                }
                done = subprocess.run(
                    ["git", "-c", "safe.directory=*", "http-backend"],
                    env=env,
                    input=self.rfile.read(size),
                    capture_output=True,
                    check=False,
                )
                head, _, body = done.stdout.partition(b"\r\n\r\n")
                lines = head.decode().split("\r\n")
                status = next((x.split()[1] for x in lines if x.startswith("Status:")), "200")
                self.send_response(int(status))
                for line in lines:
                    name, _, value = line.partition(": ")
                    if name and name != "Status":
                        self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.place = f"127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
