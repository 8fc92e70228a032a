"""The ``gantry`` client: a face of the HTTP API. Imports nothing else of ciserver."""

import sys

# httpx would bring its own command line with it, for which it loads click, Pygments and half of
# Rich: an eighth of what a command of ours takes. It does without what cannot be imported.
sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]
