"""Every page is a page and every button a form: without scripts the same work is done."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import OpenPage
from tests.ciserver.pages.serving import Stage

pytestmark = pytest.mark.browser


def test_a_project_is_made_and_set_up(open_page: OpenPage) -> None:
    page = open_page("/login/", user="", java_script_enabled=False)
    page.get_by_label("Name").fill("alice")
    page.get_by_label("Password").fill("alice-password-1")
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("link", name="New project").click()
    page.get_by_label("Name").fill("plain")
    page.get_by_role("button", name="Make project").click()
    expect(page.get_by_role("heading", name="Push the first commit")).to_be_visible()
    page.get_by_role("button", name="Make the secret").click()
    expect(page.get_by_role("heading", name="The new webhook secret")).to_be_visible()
    page.get_by_role("button", name="Test it").click()
    expect(page.locator(".note.success")).to_contain_text("took a signed test")
    page.locator("#settings").get_by_role("link", name="Secrets").click()
    page.get_by_label("Name").fill("KEY")
    page.get_by_label("Value").fill("swordfish-and-more")
    page.get_by_role("button", name="Set secret").click()
    page.get_by_role("button", name="Remove KEY").click()
    expect(page.locator(".list-row")).to_have_count(0)
    page.locator("details.menu summary").click()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", name="Sign in to Gantry")).to_be_visible()


def test_a_log_is_read_searched_and_its_pipeline_run_again(
    stage: Stage, open_page: OpenPage
) -> None:
    pipeline = stage("start", slug="search", title="Fails plainly")
    stage("number_lines", pipeline=pipeline["id"], first=1, last=400)
    stage("fail", pipeline=pipeline["id"], reason="Exit code 2.", place="Dockerfile:2")
    path = f"/projects/search/pipelines/{pipeline['number']}/"
    page = open_page(path, java_script_enabled=False)
    expect(page.locator("#j1-L400")).to_be_visible()
    page.get_by_role("link", name=re.compile("earlier lines")).click()
    expect(page.locator(".log")).to_contain_text("line 1.")
    page.goto(path)
    page.get_by_role("searchbox").fill("line 123.")
    page.keyboard.press("Enter")
    page.locator(".log .l a").click()
    expect(page.locator("#j1-L123")).to_be_visible()
    page.goto("/projects/hello/pipelines/6/")
    page.locator("#jobs .job", has_text="build").click()
    expect(page.locator("#j1")).to_be_visible()
    expect(page.locator("#j2")).not_to_be_visible()
    page.goto(path)
    page.get_by_role("button", name="Re-run all").click()
    expect(page.locator("#verdict")).to_contain_text("Waiting")
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("#verdict")).to_contain_text("ancelled")


def test_what_waits_is_approved_and_images_are_compared(stage: Stage, open_page: OpenPage) -> None:
    page = open_page(
        "/deployments/{waiting}/approve/".format(**stage.names), java_script_enabled=False
    )
    page.get_by_role("link", name="Cancel").click()
    expect(page.get_by_role("main")).to_contain_text("waits")
    page.goto("/projects/hello/images/")
    page.get_by_role("button", name="Compare old and new").click()
    expect(page.get_by_role("main")).to_contain_text("travel to a host that has the old one")
