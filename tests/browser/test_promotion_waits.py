"""A promotion that waits is looked at, refused and approved by somebody else, in the dialog."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import OpenPage
from tests.ciserver.pages.serving import Stage

pytestmark = pytest.mark.browser
RELEASE = "/projects/shop/releases/3/"


@pytest.fixture
def guarded(stage: Stage) -> Iterator[None]:
    """The stage environment of ``shop`` needs bob's approval."""
    stage("join", slug="shop", name="bob", role="developer")
    stage("approvals", slug="shop", environment="stage", needed=1, approvers="bob")
    yield
    stage("approvals", slug="shop", environment="stage", needed=0, approvers="")


def test_who_asks_waits_and_somebody_else_says_yes(
    guarded: None, stage: Stage, open_page: OpenPage
) -> None:
    alice, bob = open_page(RELEASE), open_page(RELEASE, user="bob", theme="dark")
    for answer in ("refuse", "approve"):
        alice.get_by_role("link", name="Promote to stage").click()
        dialog = alice.get_by_role("dialog")
        expect(dialog).to_contain_text("It needs 1 more approval.")
        dialog.get_by_role("button", name="Promote").click()
        expect(alice.locator(".note")).to_have_text("v3 waits for stage. It needs 1 more approval.")
        expect(alice.get_by_role("link", name="Look or withdraw")).to_be_visible()
        look = bob.get_by_role("link", name="Look and approve")  # comes without loading again
        look.click()
        dialog = bob.get_by_role("dialog")
        expect(dialog).to_contain_text("Let v3 go to stage?")
        expect(dialog.get_by_role("button", name="Approve")).to_be_focused()
        if answer == "refuse":
            dialog.get_by_label("Reason").fill("not before the sale ends")
            dialog.get_by_role("button", name="Refuse").click()
            words = "Refused by bob: not before the sale ends."
            expect(bob.locator(".note")).to_have_text(words)
            expect(alice.locator("#deployments")).to_contain_text(words)
        else:
            bob.keyboard.press("Enter")
            expect(bob.locator(".note")).to_have_text("Approved. v3 is on its way.")
            expect(alice.locator("#places")).to_contain_text("v3 is arriving")
    stage("arrive", deployment=stage("last_deployment")["id"])
