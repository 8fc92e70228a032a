"""What containers say is watched on a page, and they are stopped and started from one."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import OpenPage
from tests.ciserver.pages.serving import Stage

pytestmark = pytest.mark.browser
PLACE = "/projects/hello/environments/qa/"


def asked(stage: Stage, page: Page, verb: str) -> int:
    """Clicks through to the page of a command, which the stage hand has taken; its number."""
    page.locator(".host-verbs").get_by_role("link", name=verb, exact=True).click()
    page.locator("dialog").get_by_role("button").first.click()
    expect(page).to_have_url(re.compile("/commands/"))
    return int(stage("take_command"))


def test_a_containers_log_is_drawn_while_it_is_said(stage: Stage, open_page: OpenPage) -> None:
    page = open_page(PLACE)
    number = asked(stage, page, "Log")
    log, state = page.locator("#command-log"), page.locator("#command-state")
    expect(state).to_have_text("live")
    stage("say", command=number, text="ready\n")
    expect(log).to_have_text("ready")
    stage("say", command=number, text="<b>disk</b> full: \N{SNOWMAN}\n", stream="err")
    expect(log.locator(".said-err")).to_have_text("<b>disk</b> full: \N{SNOWMAN}")
    stage("say", command=number, text="".join(f"line {one}\n" for one in range(200)))
    expect(log).to_contain_text("line 199")
    assert log.evaluate("(one) => one.scrollHeight - one.scrollTop - one.clientHeight") < 40
    stage("end_command", command=number, exit_code=137)
    expect(state).to_have_text("ended with exit code 137")
    page.reload()
    expect(log).to_have_text("What it said is not kept.")
    expect(page.locator("#command-state")).to_have_text("ended with exit code 137")


@pytest.mark.parametrize("verb", ["Restart", "Stop"])
def test_a_container_is_moved_by_a_button_and_says_how_it_went(
    stage: Stage, open_page: OpenPage, verb: str
) -> None:
    page = open_page(PLACE)
    number = asked(stage, page, verb)
    stage("say", command=number, text=f"{verb} on local\n")
    expect(page.locator("#command-log")).to_have_text(f"{verb} on local")
    stage("end_command", command=number, reason="It did not become healthy.")
    expect(page.locator("#command-state")).to_have_text("It did not become healthy.")
    page.get_by_role("link", name="Back to qa").click()
    expect(page.get_by_role("heading", name="qa hello")).to_be_visible()


def test_a_log_is_asked_for_again_by_a_button(stage: Stage, open_page: OpenPage) -> None:
    page = open_page(PLACE)
    number = asked(stage, page, "Log")
    expect(page.locator("#command-state")).to_have_text("live")
    stage("end_command", command=number, reason="The host is away.")
    expect(page.locator("#command-state")).to_have_text("The host is away.")
    page.get_by_role("button", name="Again").click()
    assert int(stage("take_command")) > number
