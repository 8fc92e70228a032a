"""Caddy's admin API: which container answers on an environment's port.

One Caddy server per environment, so that each listens on a port of its own. Every change is
one request that Caddy applies as a whole or not at all; requests under way finish on the
container they began with. https://caddyserver.com/docs/api
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import h11
import httpx

from ciserver.releases.targets import admin_socket
from ciserver.releases.targets.admin_socket import Answer
from ciserver.releases.targets.domains import (
    ACME,
    HTTP,
    HTTPS,
    Domains,
    Edge,
    domains_in,
    with_domains,
)
from ciserver.releases.targets.errors import TrafficError, understood

APPS = "/config/apps"
SERVERS = f"{APPS}/http/servers"
NEAR = ["127.0.0.1/32", "::1/128"]  # whose word on where a request came from is believed
TIMEOUT = 5.0  # seconds
# Caddy read a certificate's file while it wrote it for the configuration before this one.
HALF_WRITTEN = "caching certificate: decoding certificate metadata"
ON_THEIR_WAY = 0.5  # seconds that a request has from a name to the port it leads to
TRIES = 5  # at a change that others get in the way of
Permit = Callable[[], None]


def granted() -> None:
    """The permit of a caller who needs none."""


class Proxy:
    """The Caddy behind one admin socket."""

    def __init__(self, socket: Path, *, listen: str = "127.0.0.1", host: str = "") -> None:
        """``listen`` is the address that environments are served on; empty for all. ``host`` is
        the name of another machine that it runs on."""
        self.socket = socket
        self.listen = listen
        self._named = f"Caddy on {host}" if host else f"The proxy at {socket}"
        self._next_step = (
            f"See caddy.log in its folder there; 'gantry hosts check {host}' starts it again."
            if host
            else "Look at the service's caddy log; the supervisor starts it again by itself."
        )

    def routes(self) -> dict[str, str]:
        """Upstream (HOST:PORT) by server name."""
        return {name: upstream for name, (upstream, _) in self.served().items()}

    def served(self) -> dict[str, tuple[str, int]]:
        """Upstream (HOST:PORT) and the port that is answered on, by server name."""
        with understood("what routes there are"):
            servers = self._servers().items()
            return {
                name: (_dial(row, 0), _port(row))
                for name, row in servers
                if name not in {HTTP, HTTPS}
            }

    def domains(self) -> dict[str, Domains]:
        """The host names that are served, by server name."""
        with understood("what names there are"):
            return domains_in(self._get(APPS))

    def name(
        self, name: str, domains: Domains | None, *, edge: Edge, permit: Permit = granted
    ) -> None:
        """From now on the server ``name`` answers to ``domains``, or with None to no host name.
        May be called again. ``permit`` as for ``serve``. The ``acme_root`` of ``edge`` is a file
        here.

        Raises TrafficError, and then names are as they were.
        """
        edge = self._here(edge, domains)

        def changed(now: Any) -> Any:
            if domains is None and name not in domains_in(now):
                return now
            return with_domains(now, name, domains, edge)

        self._change(APPS, changed, permit)

    def _here(self, edge: Edge, domains: Domains | None) -> Edge:
        if domains is None or domains.https != ACME or not edge.acme_root:
            return edge
        return replace(edge, acme_root=self.has(Path(edge.acme_root)))

    def has(self, root: Path) -> str:
        """Where Caddy finds the authority's certificate ``root``."""
        return str(root)

    def serve(self, name: str, *, port: int, upstream: str, permit: Permit = granted) -> None:
        """From now on ``upstream`` answers on 127.0.0.1:``port``. May be called again.

        ``permit`` raises if the caller may not any more. It is asked between a look and the
        change, and the change is refused if anything was changed since the look: a caller who
        slept in between cannot undo what a successor did.

        Raises TrafficError, and then what served before still does.
        """

        def changed(now: Any) -> Any:
            before = _dial(now, 0)
            if (before, _port(now)) == (upstream, port):
                return now
            leaving = _dial(now, 1) if before == upstream else before
            return server(port, upstream, leaving=leaving, address=self.listen)

        self._ensure_app()
        self._change(f"{SERVERS}/{name}", changed, permit)

    def readdress(self, name: str, *, port: int, edge: Edge, permit: Permit = granted) -> None:
        """What ``name`` serves is answered on ``port`` from now on, and its host names lead there
        in the same change. May be called again; nothing for what is not served. ``edge`` and
        ``permit`` as for ``name``.

        The port before answers a moment longer, for requests by name that are on their way there.
        Raises TrafficError, and then all is as it was, or both answer until it is called again.
        """

        def changed(now: Any, *, alone: bool) -> Any:
            servers = ((now or {}).get("http") or {}).get("servers") or {}
            row = servers.get(name)
            if row is None:
                return now
            here = f"{self.listen}:{port}"
            before = [] if alone else [one for one in row["listen"] if one != here]
            if row["listen"] == [here, *before]:
                return now
            moved = {**row, "listen": [here, *before]}
            apps = {**now, "http": {**now["http"], "servers": {**servers, name: moved}}}
            names = domains_in(now).get(name)
            if names is None:
                return apps
            return with_domains(apps, name, replace(names, port=port), self._here(edge, names))

        if self._change(APPS, partial(changed, alone=False), permit):
            time.sleep(ON_THEIR_WAY)
        self._change(APPS, partial(changed, alone=True), permit)

    def forget(self, name: str, *, permit: Permit = granted) -> None:
        """Nothing answers there any more. May be called again. ``permit`` as for ``serve``."""
        self._change(f"{SERVERS}/{name}", lambda _: None, permit)

    def close(self, name: str, *, seconds: float, permit: Permit = granted) -> None:
        """``forget``, once no request is under way or ``seconds`` are over. May be called again,
        also after a crash. New requests are refused from the beginning."""

        def changed(now: Any) -> Any:
            before = _dial(now, 0)
            return closing(before) if before else now

        self._change(f"{SERVERS}/{name}", changed, permit)
        self.drain(name, seconds=seconds, permit=permit)
        self.forget(name, permit=permit)

    def drain(self, name: str, *, seconds: float, permit: Permit = granted) -> bool:
        """Wait until no request is under way to what served before the last ``serve``; False if
        ``seconds`` were too few. May be called again, also after a crash."""
        leaving = _dial(self._servers().get(name), 1)
        if not leaving:
            return True
        drained = self._is_idle(leaving, time.monotonic() + seconds)

        def changed(now: Any) -> Any:
            return {**now, "routes": now["routes"][:1]} if _dial(now, 1) == leaving else now

        self._change(f"{SERVERS}/{name}", changed, permit)
        return drained

    def _change(self, path: str, changed: Callable[[Any], Any], permit: Permit) -> bool:
        """Set ``path`` to what ``changed`` makes of what is there, None being nothing; whether
        that was anything else.
        Compare-and-set: https://caddyserver.com/docs/api#concurrent-config-changes"""
        for _ in range(TRIES):
            now, etag = self._look(path)
            with understood("what is set there"):
                wanted = changed(now)
            if wanted == now:
                return False
            permit()
            # POST to a key of an object sets it, whether or not it was there.
            method = "DELETE" if wanted is None else "POST"
            response = self._request(method, path, wanted, if_match=etag)
            if HALF_WRITTEN in response.text:
                time.sleep(0.2)
            elif response.status_code != httpx.codes.PRECONDITION_FAILED:
                self._checked(response)
                return True
        if HALF_WRITTEN in response.text:
            self._checked(response)
        raise TrafficError(
            f"The proxy's {path} was changed by others {TRIES} times meanwhile. Deploy again."
        )

    def _is_idle(self, upstream: str, deadline: float) -> bool:
        while True:
            known = self._get("/reverse_proxy/upstreams") or []
            with understood("how many requests there are"):
                asked = [row["num_requests"] for row in known if row["address"] == upstream]
            if not any(asked):
                return True
            if time.monotonic() > deadline:
                return False
            time.sleep(0.1)

    def _servers(self) -> dict[str, Any]:
        with understood("what routes there are"):
            return dict(self._get(SERVERS) or {})

    def _ensure_app(self) -> None:
        """A Caddy that has just started has no HTTP app, and no path below it can be set."""

        def changed(now: Any) -> Any:
            config = now or {}
            apps = config.get("apps") or {}
            http = apps.get("http") or {}
            if "servers" in http:
                return now
            return {**config, "apps": {**apps, "http": {**http, "servers": {}}}}

        self._change("/config/", changed, granted)

    def _get(self, path: str) -> Any:
        return self._look(path)[0]

    def _look(self, path: str) -> tuple[Any, str]:
        """What is set at ``path``, None being nothing, and its ETag."""
        answer = self._asked("GET", path)
        if answer.status == httpx.codes.BAD_REQUEST:
            return None, ""  # "invalid traversal path": nothing was set above it yet
        response = self._checked(httpx.Response(answer.status, content=answer.body))
        with understood("what is set there"):
            return response.json(), answer.etag

    def _request(self, method: str, path: str, value: Any, *, if_match: str) -> httpx.Response:
        content = None if value is None else json.dumps(value).encode()
        answer = self._asked(method, path, body=content, if_match=if_match)
        return httpx.Response(answer.status, content=answer.body)

    def _asked(self, method: str, path: str, **more: Any) -> Answer:
        try:
            return admin_socket.ask(self.socket, method, path, timeout=TIMEOUT, **more)
        except (OSError, h11.ProtocolError) as error:
            raise TrafficError(
                f"{self._named} does not answer ({error}). {self._next_step}"
            ) from error

    def _checked(self, response: httpx.Response) -> httpx.Response:
        if response.is_success:
            return response
        try:
            words = str(response.json()["error"])
        except (ValueError, KeyError, TypeError):
            words = response.text[:300]
        step = "Free that port" if "already in use" in words else "See Caddy's log"
        words = f"{words.rstrip('. ')}. {step} on the host, then deploy again."
        raise TrafficError(f"The proxy refused the route: {words}")


def server(
    port: int, upstream: str, *, leaving: str = "", address: str = "127.0.0.1"
) -> dict[str, Any]:
    """A Caddy server (apps.http.servers.NAME) that sends everything to ``upstream``.

    ``leaving`` gets no request any more. A route that matches nothing keeps it known to Caddy,
    which else would forget how many requests are still under way to it.
    """
    routes = [{"handle": [_handler(upstream)]}]
    if leaving:
        routes.append(_kept(leaving))
    return {
        "listen": [f"{address}:{port}"],
        "automatic_https": {"disable": True},
        "routes": routes,
    }


def closing(leaving: str) -> dict[str, Any]:
    """A server in whose place nothing answers: it is only there so that Caddy goes on counting
    requests to ``leaving``. It has to listen somewhere; nobody is told where."""
    refused = {"handler": "static_response", "status_code": 503}
    return {
        "listen": ["127.0.0.1:0"],
        "automatic_https": {"disable": True},
        "routes": [{"handle": [refused]}, _kept(leaving)],
    }


def _kept(leaving: str) -> dict[str, Any]:
    """A route that matches nothing."""
    return {"match": [{"not": [{}]}], "handle": [_handler(leaving)]}


def _handler(upstream: str) -> dict[str, Any]:
    return {
        "handler": "reverse_proxy",
        "upstreams": [{"dial": upstream}],
        # While a crashed container is started again, wait a moment instead of failing.
        "load_balancing": {"try_duration": "2s", "try_interval": "100ms"},
        # This Caddy itself, for a host name (see domains): it knows who asked, and by HTTPS.
        "trusted_proxies": NEAR,
    }


def _port(server: dict[str, Any] | None) -> int:
    """Where a server listens; 0 for nowhere."""
    try:
        return int(str((server or {})["listen"][0]).rpartition(":")[2])
    except (LookupError, TypeError, ValueError):
        return 0


def _dial(server: dict[str, Any] | None, route: int) -> str:
    """The upstream of a server's ``route``; empty if it has none."""
    if server is None:
        return ""
    try:
        return str(server["routes"][route]["handle"][0]["upstreams"][0]["dial"])
    except (LookupError, TypeError, AttributeError):
        return ""
