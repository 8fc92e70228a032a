"""The service: webhooks, pipelines, releases and the pages that show them."""

import sys

# httpx would load its own command line with it, and with that rich, pygments and click: a third of
# what it takes to start. With None it finds that there is none.
sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]

__version__ = "0.1.0"
