"""Every command of README.md and docs/ is typed, and does what its page says."""

from __future__ import annotations

import pytest

from tests.walk.pages import AT_THE_END, IN_USE
from tests.walk.walking import Page, Walk

pytestmark = [pytest.mark.e2e, pytest.mark.root, pytest.mark.timeout(900)]


@pytest.mark.parametrize("page", [*IN_USE, *AT_THE_END], ids=lambda page: page.name)
def test_the_commands_of(walk: Walk, page: Page) -> None:
    walk.page(page)
