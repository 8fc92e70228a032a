"""Everything about images: Dockerfile in, sealed OCI image out.

Uses ``runtime`` for whatever runs; knows nothing of Django.
Usable alone: ``python -m builders``.
"""

import sys

# httpx would load its own command line with it, and with that rich, pygments and click: a third of
# what it takes to start. With None it finds that there is none.
sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]
