"""Reaching a member of a private network from outside, as its neighbours do: is it ready yet?

The host has no way into that network, on purpose. A thread enters the member's own namespace,
makes a socket there, which stays where it was made, and ends. It asks the member's address on
the network, not its loopback: a server that nobody else can reach is not ready.
"""

from __future__ import annotations

import os
import re
import socket
import time

from runtime import syscalls
from runtime.errors import SpecError
from runtime.network import NetworkHandle, directory

STATUS_LINE = re.compile(rb"HTTP/[0-9.]{1,3} ([1-9][0-9]{2})(?: |$)")
LONGEST_LINE = 1024  # bytes


def connect(member: NetworkHandle, port: int, *, timeout: float) -> socket.socket:
    """A TCP connection to ``port`` of the member; the caller closes. Raises OSError, SpecError."""
    netns, address = member.netns, member.address
    if netns is None or address is None:
        raise SpecError(
            "Only a member of a private network can be reached from outside.",
            hint="Make it one (runtime.network.open_private).",
        )
    made: list[socket.socket] = []

    def make() -> None:
        fd = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
        try:
            syscalls.setns(fd, syscalls.CLONE_NEWNET)
        finally:
            os.close(fd)
        made.append(socket.socket(socket.AF_INET, socket.SOCK_STREAM))

    directory.in_thread(make)
    made[0].settimeout(timeout)
    try:
        made[0].connect((address, port))
    except BaseException:
        made[0].close()
        raise
    return made[0]


def http_status(member: NetworkHandle, port: int, path: str, *, timeout: float) -> int:
    """The status that GET ``path`` is answered with, within ``timeout`` seconds in all.

    Raises OSError when there is no answer (RFC 9112, section 4), SpecError.
    """
    deadline = time.monotonic() + timeout
    with connect(member, port, timeout=timeout) as connection:
        head = f"GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close\r\n"
        connection.sendall(f"{head}User-Agent: gantry\r\nAccept: */*\r\n\r\n".encode())
        line = b""
        while b"\n" not in line and len(line) < LONGEST_LINE:
            connection.settimeout(max(deadline - time.monotonic(), 0.001))
            data = connection.recv(LONGEST_LINE)
            if not data:
                break
            line += data
    found = STATUS_LINE.match(line.split(b"\n")[0].rstrip())
    if not found:
        raise OSError("what answered does not speak HTTP")
    return int(found[1])
