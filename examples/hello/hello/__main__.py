"""``python -m hello``: serves on port 8080 until it is told to stop."""

import os
import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from hello.greeting import greet

PORT = 8080


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        pages = {"/": page, "/healthz": lambda: "ok\n"}
        found = pages.get(self.path)
        body = (found() if found else "not here\n").encode()
        self.send_response(200 if found else 404)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words):
        if self.path != "/healthz":
            super().log_message(*words)


def page():
    return greet(
        commit=os.environ.get("GANTRY_COMMIT", "unknown"),
        release=os.environ.get("GANTRY_RELEASE", "no release"),
        environment=os.environ.get("GANTRY_ENVIRONMENT", "nowhere"),
    )


def serve(port=PORT):
    return ThreadingHTTPServer(("", port), Handler)


if __name__ == "__main__":
    # Process 1 has no default action for SIGTERM: without this, a stop takes ten seconds.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    print(f"listening on port {PORT}", flush=True)
    serve().serve_forever()
