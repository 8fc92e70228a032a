"""``python -m runtime run|exec|cp|pause|resume|list|drop|reap|check``: sandboxes, no server."""

import atexit
import gc
import sys

from runtime.cli import main

if __name__ == "__main__":
    atexit.register(gc.freeze)  # its last collections free nothing
    sys.exit(main())
