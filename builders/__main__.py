"""``python -m builders``: build, pull, push, inspect, import, base, prune, with no server."""

import atexit
import gc
import signal
import sys

from builders.cli import main

if __name__ == "__main__":
    atexit.register(gc.freeze)  # its last collections, a fifth of a short command, free nothing
    # Of this process alone: whoever calls main() may write to sockets.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    sys.exit(main(sys.argv[1:]))
