"""``python -m runtime run|exec|cp|pause|resume|list|drop|reap|check``: sandboxes, no server."""

import sys

from runtime.cli import main

if __name__ == "__main__":
    sys.exit(main())
