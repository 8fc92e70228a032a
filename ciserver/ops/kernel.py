"""A setting of this machine's kernel that traffic needs."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

# Caddy listens anew at each change of its routes (SO_REUSEPORT) and closes the socket it had. The
# kernel resets who was in that one's line, unless it is told to hand them to the other (Linux
# 5.14, Documentation/networking/ip-sysctl.rst). It does nothing for those who do neither.
MIGRATE = Path("/proc/sys/net/ipv4/tcp_migrate_req")


def keep_who_connects() -> None:
    """Let no connection be lost while releases change places."""
    with suppress(OSError):  # a container whose /proc/sys is read-only: its host's to set
        MIGRATE.write_text("1")
