"""The server: GET / lists the notes, POST / adds one."""

import json
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from notes.store import Notes


class Handler(BaseHTTPRequestHandler):
    notes: Notes

    def do_GET(self) -> None:
        self._answer(200, self.notes.all())

    def do_POST(self) -> None:
        length = min(int(self.headers.get("Content-Length", 0)), 10_000)
        self._answer(201, self.notes.add(self.rfile.read(length).decode()))

    def _answer(self, status: int, body: object) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())


if __name__ == "__main__":
    Handler.notes = Notes(os.environ["DATABASE_URL"])
    ThreadingHTTPServer(("", 8080), Handler).serve_forever()
