"""``gantry`` without the start of an interpreter: each call is a fork of one that has begun.

A call's own standard streams, folder and environment travel to it by a socket, so that the line
of a page is typed in a real shell, with its pipes and redirections. Where the client starts by
itself is told by ``./gantry``, which the pages type as well.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
from array import array
from collections.abc import Callable
from contextlib import suppress

from typer.main import get_command

SOCKET = "/run/warm.sock"
# Started by an interpreter that loads nothing: a fiftieth of the client's own start.
PROGRAM = f'''#!/usr/bin/python3 -IS
import os, signal, socket, sys
from array import array

line = socket.socket(socket.AF_UNIX)
line.connect("{SOCKET}")
words = [os.getcwd(), str(len(sys.argv) - 1), *sys.argv[1:]]
words += [f"{{name}}={{value}}" for name, value in os.environ.items()]
streams = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", [0, 1, 2]))]
line.sendmsg([b"-"], streams)
line.sendall(os.fsencode("\\0".join(words)))
line.shutdown(socket.SHUT_WR)
answer = line.makefile()
pid = int(answer.readline())
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda number, _: os.kill(pid, number))
code = int(answer.readline())
sys.exit(code if code >= 0 else 128 - code)
'''


def serve() -> None:
    """Take calls until we are killed."""
    from ciserver.cli import __main__ as client

    client.app = get_command(client.app)  # as it does itself, for each call
    _rehearse(client.run)
    gc.freeze()
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(SOCKET)
        door.listen(16)
        while True:
            call, _ = door.accept()
            if os.fork():
                call.close()
                _reap()
            else:
                door.close()
                _answer(call, client.run)


def _rehearse(run: Callable[[], None]) -> None:
    """Have loaded what a call loads only when it runs, by one that reaches nobody."""
    os.environ |= {"GANTRY_URL": "http://127.0.0.1:9", "GANTRY_TOKEN": "none"}
    sys.argv = ["gantry", "status"]
    with suppress(SystemExit):
        run()


def _reap() -> None:
    while True:
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                return
        except ChildProcessError:
            return


def _answer(call: socket.socket, run: Callable[[], None]) -> None:
    """One call, in a process between: it waits for the client's end and tells it."""
    _, extra, _, _ = call.recvmsg(1, socket.CMSG_SPACE(3 * array("i").itemsize))
    streams = array("i")
    streams.frombytes(extra[0][2])
    text = b""
    while piece := call.recv(65536):
        text += piece
    folder, count, *words = os.fsdecode(text).split("\0")
    arguments, pairs = words[: int(count)], words[int(count) :]
    pid = os.fork()
    if pid:
        for stream in streams:
            os.close(stream)
        call.sendall(b"%d\n" % pid)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        call.sendall(b"%d\n" % code)
        os._exit(0)
    call.close()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    for stream in streams:
        os.close(stream)
    # Ours were made for other files.
    sys.stdin, sys.stdout = open(0, closefd=False), open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's "&" ignores it
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(pair.split("=", 1) for pair in pairs)
    sys.argv = ["gantry", *arguments]
    try:
        run()
    except SystemExit as end:
        sys.stderr.flush()
        os._exit(int(end.code or 0))


if __name__ == "__main__":
    serve()
