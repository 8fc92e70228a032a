"""``python -m builders``: build, pull, push, inspect, import, base, prune, with no server."""

import sys

from builders.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
