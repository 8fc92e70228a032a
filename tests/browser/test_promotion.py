"""A release goes to production by the button, with the mouse and with keys alone."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import OpenPage
from tests.ciserver.pages.serving import Stage

pytestmark = pytest.mark.browser


def test_a_release_is_promoted_by_the_button_and_seen_to_arrive(
    stage: Stage, open_page: OpenPage
) -> None:
    page = open_page("/projects/hello/releases/4/")
    page.get_by_role("link", name="Promote to prod").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("Promote v4 to prod?")
    expect(dialog).to_contain_text("v3 goes on serving until v4 is healthy.")
    expect(dialog.get_by_role("button", name="Promote")).to_be_focused()
    dialog.get_by_role("button", name="Promote").click()
    expect(page.locator(".note")).to_have_text("v4 is on its way to prod.")
    expect(page.locator("#places")).to_contain_text("v4 is arriving")
    deployment = stage("last_deployment")
    assert (deployment["release"], deployment["environment"]) == ("v4", "prod")
    assert (deployment["state"], deployment["by"]) == ("queued", "alice")
    stage("arrive", deployment=deployment["id"])
    place = page.locator(".place", has_text="prod")
    expect(place).to_contain_text("runs here, healthy")  # without loading the page again
    expect(page.locator("#deployments")).to_contain_text("succeeded")


def test_the_matrix_moves_by_itself(stage: Stage, open_page: OpenPage) -> None:
    page = open_page("/")
    cell = page.locator("#row-shop td").nth(2)
    expect(cell).to_contain_text("behind by 2")
    cell.get_by_role("link", name="Promote v2").click()
    page.get_by_role("dialog").get_by_role("button", name="Promote").click()
    expect(page).to_have_url(re.compile("/projects/shop/releases/2/"))
    page.goto("/")
    expect(cell).to_contain_text("v2 is arriving")
    stage("arrive", deployment=stage("last_deployment")["id"])
    expect(cell).to_contain_text("behind by 1")
    expect(cell.locator(".ver")).to_have_text("v2")


# Every animation that a script begins, by where it begins.
WATCH_MOVES = """
window.moves = [];
const animate = Element.prototype.animate;
Element.prototype.animate = function (frames, options) {
  moves.push([this.closest(".cell").id, frames[0].transform]);
  return animate.call(this, frames, options);
};
null;  // else Playwright would call the function
"""


@pytest.mark.parametrize("still", [False, True])
def test_a_container_is_seen_to_move_unless_somebody_wants_no_motion(
    stage: Stage, open_page: OpenPage, still: bool
) -> None:
    slug = f"port{int(still)}"
    stage("harbour", slug=slug)
    page = open_page("/")
    page.emulate_media(reduced_motion="reduce" if still else "no-preference")
    page.evaluate(WATCH_MOVES)
    cell = page.locator(f"#row-{slug} .cell").nth(1)
    expect(cell).to_contain_text("v1 is arriving")
    page.wait_for_timeout(3200)  # the page has looked once, and knows what was where
    stage("arrive", deployment=stage("last_deployment")["id"])
    expect(cell.locator(".ver")).to_have_text("v1")
    moves = page.evaluate("moves")
    if still:
        assert moves == []
    else:
        [(where, start)] = moves
        assert where == cell.get_attribute("id")
        left = float(re.match(r"translate\((-?[\d.]+)px", start)[1])
        assert left < -100  # from the cell of qa, to the left of it


def test_cancelling_the_dialog_changes_nothing_and_gives_the_focus_back(
    stage: Stage, open_page: OpenPage
) -> None:
    before = stage("last_deployment")["id"]
    page = open_page("/projects/hello/releases/5/")
    button = page.get_by_role("link", name="Promote to prod")
    for close in (lambda: page.keyboard.press("Escape"), lambda: click_cancel(page)):
        button.click()
        expect(page.get_by_role("dialog")).to_be_visible()
        close()
        expect(page.get_by_role("dialog")).not_to_be_visible()
        expect(button).to_be_focused()
    assert stage("last_deployment")["id"] == before


def click_cancel(page: Page) -> None:
    page.get_by_role("dialog").get_by_role("link", name="Cancel").click()


def test_everything_goes_by_keyboard(stage: Stage, open_page: OpenPage) -> None:
    page = open_page("/login/", user="")
    expect(page.get_by_label("Name")).to_be_focused()
    page.keyboard.type("alice")
    page.keyboard.press("Tab")
    page.keyboard.type("alice-password-1")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="What runs where")).to_be_visible()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#main")).to_be_focused()
    tab_to(page, "hello")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="hello", exact=True)).to_be_visible()
    tab_to(page, "Promote v5")
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog").get_by_role("button", name="Promote")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator(".note")).to_have_text("v5 is on its way to prod.")
    deployment = stage("last_deployment")
    assert deployment["release"] == "v5"
    stage("arrive", deployment=deployment["id"])


def tab_to(page: Page, name: str) -> None:
    """Press Tab until the link ``name`` has the focus; each stop must be seen to have it."""
    for _ in range(60):
        page.keyboard.press("Tab")
        focus = page.evaluate(
            """() => {
                const element = document.activeElement;
                const style = getComputedStyle(element);
                return [element.innerText?.trim() ?? "", style.outlineStyle, style.outlineWidth];
            }"""
        )
        assert focus[1] != "none", focus
        assert float(focus[2].removesuffix("px")) >= 1, focus
        if focus[0] == name:
            return
    raise AssertionError(f"Tab never reached {name!r}")


def test_promoting_needs_no_script(stage: Stage, open_page: OpenPage) -> None:
    page = open_page("/projects/hello/releases/2/", java_script_enabled=False)
    page.get_by_role("link", name="Roll back to v2").nth(1).click()
    expect(page.get_by_role("heading", name="Roll prod back to v2?")).to_be_visible()
    page.get_by_role("button", name="Roll back").click()
    expect(page.locator(".note")).to_have_text("v2 is on its way to prod.")
    stage("arrive", deployment=stage("last_deployment")["id"])


def test_bob_is_offered_no_promotion(open_page: OpenPage) -> None:
    page = open_page("/projects/hello/releases/5/", user="bob")
    expect(page.locator("#places")).to_be_visible()
    assert page.locator("a[data-dialog]").count() == 0
