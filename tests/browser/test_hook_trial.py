"""A webhook is tested by a button, through the service's own address."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from ciserver.webhooks.forges import FORGES
from tests.browser.conftest import OpenPage
from tests.ciserver.pages.serving import Stage

pytestmark = pytest.mark.browser


def test_a_new_secret_is_tested_by_a_button_at_the_address_of_each_forge(
    stage: Stage, open_page: OpenPage
) -> None:
    stage("harbour", slug="hooked")
    page = open_page("/projects/hooked/")
    page.get_by_role("link", name="Connect", exact=True).click()  # folded once there is a push
    expect(page.get_by_role("button", name="Test it")).to_have_count(0)
    page.get_by_role("button", name="Make the secret").click()
    for forge in FORGES:
        page.get_by_label("As", exact=True).select_option(forge)
        page.get_by_role("button", name="Test it").click()
        note = page.locator(".note.success")
        expect(note).to_contain_text(f"/hooks/{forge}/hooked/ took a signed test (20")
    page.get_by_role("link", name="Deliveries", exact=True).first.click()
    expect(page.get_by_role("main")).to_contain_text("ping")
