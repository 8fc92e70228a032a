"""Whether a host's Caddy has a certificate for a name: asked for as a browser does."""

from __future__ import annotations

import asyncio

import httpx

from ciserver.releases.targets.machine import Machine

PATIENCE = 2.0  # seconds


def certified(machine: Machine, name: str, port: int) -> bool:
    """Whether TLS for ``name`` begins on ``port`` of ``machine``, whoever signed. Nothing is asked
    of what serves there: the request names a host that nobody has."""
    address = f"127.0.0.1:{port}"
    try:
        asyncio.run(asyncio.wait_for(_ask(machine.transport(address), address, name), PATIENCE))
    except (httpx.HTTPError, TimeoutError):
        return False
    return True


async def _ask(transport: httpx.AsyncBaseTransport | None, address: str, name: str) -> None:
    async with httpx.AsyncClient(
        timeout=PATIENCE,
        trust_env=False,
        transport=transport,
        verify=False,  # noqa: S501 - the host's own word on itself; no content is read
    ) as client:
        await client.head(
            f"https://{address}/",
            headers={"Host": "nobody.invalid"},
            extensions={"sni_hostname": name},
        )
