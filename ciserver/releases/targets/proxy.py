"""Caddy's admin API: which container answers on an environment's port.

One Caddy server per environment, so that each listens on a port of its own. Every change is
one request that Caddy applies as a whole or not at all; requests under way finish on the
container they began with. https://caddyserver.com/docs/api
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import httpx

from ciserver.releases.targets.errors import TrafficError

SERVERS = "/config/apps/http/servers"
TIMEOUT = 5.0  # seconds


class Proxy:
    """The Caddy behind one admin socket."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket

    def routes(self) -> dict[str, str]:
        """Upstream (HOST:PORT) by server name."""
        return {name: _dial(server, 0) for name, server in self._servers().items()}

    def serve(self, name: str, *, port: int, upstream: str) -> None:
        """From now on ``upstream`` answers on 127.0.0.1:``port``. May be called again.

        Raises TrafficError, and then what served before still does.
        """
        before = self.routes().get(name, "")
        if before == upstream:
            return
        self._ensure_app()
        # POST to a key of an object sets it, whether or not it was there.
        self._send("POST", f"{SERVERS}/{name}", server(port, upstream, leaving=before))

    def forget(self, name: str) -> None:
        """Nothing answers there any more. May be called again."""
        if name in self.routes():
            self._send("DELETE", f"{SERVERS}/{name}", None)

    def drain(self, name: str, *, seconds: float) -> bool:
        """Wait until no request is under way to what served before the last ``serve``; False if
        ``seconds`` were too few. May be called again, also after a crash."""
        configured = self._servers().get(name, {})
        leaving = _dial(configured, 1)
        if not leaving:
            return True
        drained = self._is_idle(leaving, time.monotonic() + seconds)
        self._send("DELETE", f"{SERVERS}/{name}/routes/1", None)
        return drained

    def _is_idle(self, upstream: str, deadline: float) -> bool:
        while True:
            known = self._get("/reverse_proxy/upstreams") or []
            if not any(row["num_requests"] for row in known if row["address"] == upstream):
                return True
            if time.monotonic() > deadline:
                return False
            time.sleep(0.1)

    def _servers(self) -> dict[str, Any]:
        return self._get(SERVERS) or {}

    def _ensure_app(self) -> None:
        """A Caddy that has just started has no HTTP app, and no path below it can be set."""
        config = self._get("/config/") or {}
        if "apps" not in config:
            self._send("POST", "/config/apps", {"http": {"servers": {}}})
        elif "http" not in config["apps"]:
            self._send("POST", "/config/apps/http", {"servers": {}})
        elif "servers" not in config["apps"]["http"]:
            self._send("POST", SERVERS, {})

    def _get(self, path: str) -> Any:
        response = self._request("GET", path)
        if response.status_code == httpx.codes.BAD_REQUEST:
            return None  # "invalid traversal path": nothing was set above it yet
        return self._checked(response).json()

    def _send(self, method: str, path: str, value: Any) -> None:
        content = None if method == "DELETE" else json.dumps(value).encode()
        self._checked(self._request(method, path, content))

    def _request(self, method: str, path: str, content: bytes | None = None) -> httpx.Response:
        transport = httpx.HTTPTransport(uds=str(self.socket))
        headers = {"Content-Type": "application/json"} if content is not None else {}
        try:
            with httpx.Client(transport=transport, timeout=TIMEOUT) as client:
                # Caddy refuses names that are not among its admin "origins".
                url = f"http://localhost{path}"
                return client.request(method, url, content=content, headers=headers)
        except httpx.HTTPError as error:
            raise TrafficError(
                f"The proxy at {self.socket} does not answer ({error})."
                " Look at the service's caddy log; the supervisor starts it again by itself."
            ) from error

    def _checked(self, response: httpx.Response) -> httpx.Response:
        if response.is_success:
            return response
        try:
            words = str(response.json()["error"])
        except (ValueError, KeyError, TypeError):
            words = response.text[:300]
        raise TrafficError(f"The proxy refused the route: {words}")


def server(port: int, upstream: str, *, leaving: str = "") -> dict[str, Any]:
    """A Caddy server (apps.http.servers.NAME) that sends everything to ``upstream``.

    ``leaving`` gets no request any more. A route that matches nothing keeps it known to Caddy,
    which else would forget how many requests are still under way to it.
    """
    routes = [{"handle": [_handler(upstream)]}]
    if leaving:
        routes.append({"match": [{"not": [{}]}], "handle": [_handler(leaving)]})
    return {
        "listen": [f"127.0.0.1:{port}"],
        "automatic_https": {"disable": True},
        "routes": routes,
    }


def _handler(upstream: str) -> dict[str, Any]:
    return {
        "handler": "reverse_proxy",
        "upstreams": [{"dial": upstream}],
        # While a crashed container is started again, wait a moment instead of failing.
        "load_balancing": {"try_duration": "2s", "try_interval": "100ms"},
    }


def _dial(server: dict[str, Any], route: int) -> str:
    try:
        return str(server["routes"][route]["handle"][0]["upstreams"][0]["dial"])
    except (KeyError, IndexError, TypeError):
        return ""
