"""Whoever comes while the service starts waits for it, and is told when it does not come up."""

from __future__ import annotations

import threading
from contextlib import ExitStack

import pytest

from ciserver.config import Config
from ciserver.ops.errors import OpsError
from ciserver.ops.up import is_up, only_one, wait_until_up

pytestmark = pytest.mark.root


def test_who_asks_for_something_while_it_starts_waits_until_it_is_up(prepared: Config) -> None:
    with only_one(prepared):
        assert not is_up(prepared)
        marker = prepared.run / "gantry.up"
        threading.Timer(0.3, marker.touch).start()
        wait_until_up(prepared)
        assert marker.exists()


def test_one_that_ends_while_it_starts_is_told(prepared: Config) -> None:
    with ExitStack() as stack:
        stack.enter_context(only_one(prepared))
        threading.Timer(0.3, stack.pop_all().close).start()
        with pytest.raises(OpsError, match="did not come up"):
            wait_until_up(prepared)
