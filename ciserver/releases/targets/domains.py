"""Host names in a Caddy's configuration, beside the ports that environments are served on. Pure.

Two servers of Caddy's take them: one with TLS, one without. A route there sends a name's requests
on to the environment's own port of the same Caddy, so that a deployment, which changes what
answers on that port, has nothing to do with names, and the other way about.
https://caddyserver.com/docs/json/apps/
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

HTTPS, HTTP = "names-https", "names-http"  # the two servers
ACME, INTERNAL, OFF = "acme", "internal", "off"
MODES = {
    ACME: "certificates of a public authority, by themselves",
    INTERNAL: "certificates of the host's own authority",
    OFF: "no HTTPS",
}
NOT_FOUND = {"handle": [{"handler": "static_response", "status_code": 404}]}


@dataclass(frozen=True, slots=True, kw_only=True)
class Domains:
    """The host names of an environment, which is served on ``port``; how they get certificates."""

    names: tuple[str, ...]
    https: str  # of MODES
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """Where all host names of a host are served, and whose certificates ACME ones get: those of
    Caddy's own choice of authorities, or of the directory ``acme_url``."""

    http_port: int = 80
    https_port: int = 443
    acme_url: str = ""
    acme_email: str = ""
    acme_root: str = ""  # a PEM file on the host: whom Caddy believes to be that directory


def with_domains(now: Any, name: str, wanted: Domains | None, edge: Edge) -> dict[str, Any]:
    """Caddy's ``apps`` as ``now``, but the environment ``name`` has ``wanted`` and nobody else
    has a name of these. Both servers stand or fall with their last route."""
    found = {other: domains for other, domains in domains_in(now).items() if other != name}
    taken = set(wanted.names) if wanted else set()
    kept = {
        other: Domains(
            names=tuple(one for one in domains.names if one not in taken),
            https=domains.https,
            port=domains.port,
        )
        for other, domains in found.items()
    }
    if wanted:
        kept[name] = wanted
    every = {other: kept[other] for other in sorted(kept) if kept[other].names}
    apps = dict(now or {})
    http = dict(apps.get("http") or {})
    servers = dict(http.get("servers") or {})
    for server, port, routed in (
        (HTTPS, edge.https_port, {k: v for k, v in every.items() if v.https != OFF}),
        (HTTP, edge.http_port, {k: v for k, v in every.items() if v.https == OFF}),
    ):
        servers.pop(server, None)
        if routed:
            servers[server] = _server(server, port, routed)
    http |= {"servers": servers, "http_port": edge.http_port, "https_port": edge.https_port}
    apps["http"] = http
    return _with_certificates(apps, every, edge)


def domains_in(apps: Any) -> dict[str, Domains]:
    """By the environment's server name, what ``with_domains`` has put there."""
    apps = apps or {}
    internal = set(_internal(apps))
    found = {}
    for server in (HTTPS, HTTP):
        routes = (((apps.get("http") or {}).get("servers") or {}).get(server) or {}).get("routes")
        for route in routes or ():
            if "match" not in route:
                continue
            names = tuple(route["match"][0]["host"])
            https = OFF if server == HTTP else INTERNAL if names[0] in internal else ACME
            port = int(route["handle"][0]["upstreams"][0]["dial"].rpartition(":")[2])
            found[_owner(route)] = Domains(names=names, https=https, port=port)
    return found


def _server(server: str, port: int, routed: Mapping[str, Domains]) -> dict[str, Any]:
    routes = [_route(name, domains) for name, domains in routed.items()]
    made: dict[str, Any] = {
        "listen": [f":{port}"],
        "routes": [*routes, NOT_FOUND],
        # Without HTTP/3: each change would cut its connections.
        "protocols": ["h1", "h2"],
    }
    return made | ({"automatic_https": {"disable": True}} if server == HTTP else {})


def _route(name: str, domains: Domains) -> dict[str, Any]:
    return {
        "@id": f"{name}-names",
        "match": [{"host": list(domains.names)}],
        "handle": [
            {"handler": "reverse_proxy", "upstreams": [{"dial": f"127.0.0.1:{domains.port}"}]}
        ],
    }


def _owner(route: Mapping[str, Any]) -> str:
    return str(route["@id"]).removesuffix("-names")


def _with_certificates(
    apps: dict[str, Any], every: Mapping[str, Domains], edge: Edge
) -> dict[str, Any]:
    """Who signs. The host's own authority is never put among those that the machine trusts."""
    internal = [one for d in every.values() if d.https == INTERNAL for one in d.names]
    public = [one for d in every.values() if d.https == ACME for one in d.names]
    policies: list[dict[str, Any]] = []
    if internal:
        policies.append({"subjects": internal, "issuers": [{"module": "internal"}]})
    if public and (edge.acme_url or edge.acme_email or edge.acme_root):
        issuer = {
            "module": "acme",
            "ca": edge.acme_url,
            "email": edge.acme_email,
            "trusted_roots_pem_files": [edge.acme_root] if edge.acme_root else [],
        }
        given = {key: value for key, value in issuer.items() if value}
        policies.append({"subjects": public, "issuers": [given]})
    apps = {key: value for key, value in apps.items() if key not in {"tls", "pki"}}
    if policies:
        apps["tls"] = {"automation": {"policies": policies}}
    if internal:
        apps["pki"] = {"certificate_authorities": {"local": {"install_trust": False}}}
    return apps


def _internal(apps: Mapping[str, Any]) -> list[str]:
    policies = ((apps.get("tls") or {}).get("automation") or {}).get("policies") or ()
    return [
        name
        for policy in policies
        if policy["issuers"][0]["module"] == "internal"
        for name in policy["subjects"]
    ]
