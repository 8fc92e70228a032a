"""Which addresses are this machine's own: also those that the whole world may route to."""

from __future__ import annotations

import errno
import socket
from ipaddress import IPv4Address, IPv6Address


def is_own(address: IPv4Address | IPv6Address) -> bool:
    """Whether a connection to ``address`` would end on this machine, in this network namespace.

    Asked of the kernel by binding (ip(7): EADDRNOTAVAIL for an address that is not local), so
    that it is never older than the routing table. A kernel that lets programs bind to foreign
    addresses (``net.ipv4.ip_nonlocal_bind``) makes every address look like our own.
    """
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((str(address), 0))
    except OSError as error:
        # A machine without IPv6 has no address of it.
        if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EINVAL, errno.EACCES):
            return False
        raise
    return True
