"""A workplace whose store and registry all tests of pipelines share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from ciserver.pipelines.runner import story
from tests.ciserver.pipelines import workplace as workplaces
from tests.ciserver.pipelines.workplace import Workplace


@pytest.fixture(scope="session")
def shared_workplace() -> Iterator[Workplace]:
    with workplaces.opened() as opened:
        yield opened


@pytest.fixture
def workplace(
    shared_workplace: Workplace, project: Any, monkeypatch: pytest.MonkeyPatch
) -> Workplace:
    """Of the project ``hello``."""
    monkeypatch.setattr(story, "open_workshop", lambda: shared_workplace.workshop)
    return replace(shared_workplace, project=project, trees={})
