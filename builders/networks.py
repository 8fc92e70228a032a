"""One network for all RUN steps of a build, made when the first of them really runs.

A build whose steps all come from the cache never pays for it.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Self

from runtime.network import NetworkHandle, open_network
from runtime.spec import Network
from runtime.state import StateDirectory


class LazyNetwork:
    """Context manager; ``get`` may be called from any thread while it is open."""

    def __init__(self, kind: Network, *, state: StateDirectory, allow: Sequence[str]) -> None:
        self._kind = kind
        self._state = state
        self._allow = allow
        self._lock = threading.Lock()
        self._stack = ExitStack()
        self._opened: tuple[Network, NetworkHandle | None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def get(self) -> tuple[Network, NetworkHandle | None]:
        with self._lock:
            if self._opened is None:
                handle = self._stack.enter_context(
                    open_network(self._kind, state=self._state, allow=self._allow)
                )
                self._opened = (self._kind, handle)
            return self._opened
