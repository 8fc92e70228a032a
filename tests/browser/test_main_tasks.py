"""What people come for, each done once by the page: from the first project to who did what."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import OpenPage
from tests.ciserver.pages.seeding import digest_of
from tests.ciserver.pages.serving import Stage

pytestmark = pytest.mark.browser


def test_the_first_project_is_three_steps_from_its_first_push(
    stage: Stage, open_page: OpenPage
) -> None:
    stage("user", name="erin")
    page = open_page("/", user="erin")
    steps = page.get_by_role("list").filter(has_text="Make a project").get_by_role("listitem")
    expect(steps).to_have_count(3)
    page.get_by_role("link", name="New project").click()
    page.get_by_label("Name").fill("maiden")
    page.get_by_role("button", name="Make project").click()
    expect(page.get_by_role("heading", name="Push the first commit")).to_be_visible()
    expect(page.locator(".steps > li")).to_have_count(3)
    expect(page.locator(".steps")).to_contain_text(f"{stage.url}/git/maiden.git")
    expect(page.locator(".steps").get_by_role("link", name="a token")).to_be_visible()
    stage("first_push", slug="maiden")
    expect(page.locator("#pipeline-1")).to_contain_text("The first commit")  # without a reload
    expect(page.locator("#release-1")).to_contain_text("v1")
    forget_shifts(page)  # the three steps made room for the pipeline


def test_a_token_is_made_shown_once_and_revoked(open_page: OpenPage) -> None:
    page = open_page("/tokens/", user="bob")
    page.get_by_label("Name").fill("laptop")
    page.get_by_label("It may").select_option(index=1)
    page.get_by_label("It ends").select_option(index=1)
    page.get_by_role("button", name="Make token").click()
    shown = page.locator(".callout code")
    text = shown.inner_text()
    assert len(text) > 20
    row = page.locator(".list-row").filter(has_text="laptop")
    expect(row).to_contain_text("ends ")
    page.goto("/tokens/")
    assert text not in page.content()
    row.get_by_role("button", name="Revoke laptop").click()
    expect(row).to_have_count(0)


def test_a_secret_is_set_and_never_shown_again(stage: Stage, open_page: OpenPage) -> None:
    page = open_page("/projects/shop/")
    page.get_by_role("link", name="Settings").click()
    page.get_by_role("link", name="Secrets").click()
    page.get_by_label("Name").fill("API_KEY")
    page.get_by_label("Value").fill("swordfish-and-more")
    page.get_by_role("button", name="Set secret").click()
    row = page.locator(".list-row").filter(has_text="API_KEY")
    expect(row).to_contain_text("set by alice")
    assert "swordfish" not in page.content()
    row.get_by_role("button", name="Remove API_KEY").click()
    expect(row).to_have_count(0)


def test_a_member_gets_a_role_and_loses_it(stage: Stage, open_page: OpenPage) -> None:
    stage("user", name="dora")
    page = open_page("/projects/shop/members/")
    page.get_by_label("Name").fill("dora")
    page.get_by_label("Role").select_option(label_of(page, "maintainer"))
    page.get_by_role("button", name="Give the role").click()
    row = page.locator(".list-row").filter(has_text="dora")
    expect(row).to_contain_text("maintainer")
    theirs = open_page("/projects/shop/", user="dora")
    expect(theirs.get_by_role("heading", name="shop", exact=True)).to_be_visible()
    theirs.goto("/account/")
    row.get_by_role("button", name="Remove dora").click()
    expect(row).to_have_count(0)
    page.goto("/projects/shop/audit/?q=dora")
    expect(page.get_by_role("main")).to_contain_text("member.set shop")


def label_of(page: Page, word: str) -> str:
    """The option of the roles that begins with ``word``."""
    options = page.get_by_label("Role").locator("option").all_inner_texts()
    return next(text for text in options if text.startswith(word))


def test_deliveries_come_in_are_found_and_delivered_again(
    stage: Stage, open_page: OpenPage
) -> None:
    page = open_page("/projects/hello/deliveries/")
    stage("delivered", slug="hello", ref="refs/heads/gone")
    fresh = page.locator(".list-row").filter(has_text="refs/heads/gone")
    expect(fresh).to_contain_text("Branch was deleted.")  # without a reload
    forget_shifts(page)  # a new row on top moves those below it
    page.get_by_label("Find a delivery").fill("refs/heads/gone")
    page.get_by_role("button", name="Find").click()
    expect(page.locator(".list-row")).to_have_count(1)
    page.get_by_role("link", name="github push").click()
    expect(page.get_by_role("main")).to_contain_text("hello-refs/heads/gone")
    page.get_by_role("button", name="Deliver again").click()
    expect(page.locator(".note")).to_contain_text("is recorded once more, as ")


def test_an_image_is_found_by_its_label_and_compared(open_page: OpenPage) -> None:
    page = open_page("/registry/")
    page.get_by_role("searchbox").fill("org.example.team=greeters")
    page.keyboard.press("Enter")
    expect(page.locator(".list-row", has_text="hello v5")).to_be_visible()
    page.get_by_role("link", name=re.compile("hello v3")).click()
    expect(page.locator(".layer-map")).to_be_visible()
    page.get_by_role("link", name="Images").click()
    page.locator(f'input[name="old"][value="{digest_of("hello2")}"]').check()
    page.locator(f'input[name="new"][value="{digest_of("hello4")}"]').check()
    page.get_by_role("button", name="Compare old and new").click()
    expect(page).to_have_url(re.compile("/images/compare/"))
    expect(page.locator(".swap")).to_contain_text("v2")
    expect(page.locator(".swap")).to_contain_text("v4")
    expect(page.get_by_role("main")).to_contain_text("travel to a host that has the old one")


def test_a_policy_is_changed_and_who_did_it_is_written_down(open_page: OpenPage) -> None:
    page = open_page("/projects/shop/environments/stage/")
    page.get_by_role("link", name="Change").click()
    page.get_by_label("Minutes that it must have run").fill("15")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("main")).to_contain_text("15 min in qa")
    page.goto("/projects/shop/audit/")
    page.get_by_role("searchbox").fill("environment")
    page.keyboard.press("Enter")
    expect(page.locator(".list-row").first).to_contain_text("shop@stage")
    expect(page.locator(".list-row").first).to_contain_text("soak minutes: 0 → 15")


def test_a_machine_is_added_and_tells_what_to_do_next(stage: Stage, open_page: OpenPage) -> None:
    stage("administrator", name="operator")
    page = open_page("/", user="operator")
    page.get_by_role("link", name="Hosts").first.click()
    page.get_by_label("Name").fill("qa1")
    page.get_by_label("Address").fill("deploy@192.0.2.7")
    page.get_by_role("button", name="Add it").click()
    expect(page.locator(".note")).to_contain_text("Let it know our key, then check it.")
    expect(page.locator(".copy code").first).to_contain_text("ssh-ed25519 ")


def test_a_failed_pipeline_offers_to_run_again_without_a_reload(
    stage: Stage, open_page: OpenPage
) -> None:
    pipeline = stage("start", slug="search", title="Watch me fail")
    page = open_page(f"/projects/search/pipelines/{pipeline['number']}/")
    expect(page.get_by_role("button", name="Cancel")).to_be_visible()
    stage("fail", pipeline=pipeline["id"], reason="Exit code 2.", place="Dockerfile:2")
    again = page.get_by_role("button", name="Re-run what failed")
    expect(again).to_be_visible()
    expect(page.get_by_role("button", name="Cancel")).to_have_count(0)
    again.click()
    expect(page.locator("#verdict")).to_contain_text("Waiting")


def test_a_log_is_searched_from_its_pipeline_and_a_line_has_an_address(
    open_page: OpenPage,
) -> None:
    page = open_page("/projects/hello/pipelines/6/")
    page.keyboard.press("/")
    expect(page.get_by_label("Search the log of unit")).to_be_focused()
    page.keyboard.type("assertionerror")
    page.keyboard.press("Enter")
    hit = page.locator(".log .l")
    expect(hit).to_have_count(1)
    expect(hit.locator("mark")).to_have_text("AssertionError")
    number = hit.locator("a").inner_text()
    hit.locator("a").click()
    expect(page).to_have_url(re.compile(rf"line={number}#j2-L{number}$"))
    expect(page.locator(f"#j2-L{number}")).to_contain_text("AssertionError")


def test_a_page_left_open_asks_to_sign_in_once_its_session_ended(open_page: OpenPage) -> None:
    page = open_page("/")
    page.context.clear_cookies()
    expect(page.get_by_role("heading", name="Sign in to Gantry")).to_be_visible()
    assert page.url.endswith("/login/?next=/")


def forget_shifts(page: Page) -> None:
    """Rows that come while somebody looks push others down; nothing else may move."""
    page.evaluate("window.shifts = []")


def test_a_project_is_archived_restored_and_deleted_by_its_name(open_page: OpenPage) -> None:
    page = open_page("/new-project/", grumbles="status of 400")
    page.get_by_label("Name").fill("barge")
    page.get_by_role("button", name="Make project").click()
    page.goto("/projects/barge/archive/")
    page.get_by_role("button", name="Archive it").click()
    expect(page.get_by_role("heading", name="It is archived")).to_be_visible()
    page.goto("/projects/barge/")
    expect(page.get_by_text("None ran before it was archived.")).to_be_visible()
    page.get_by_role("link", name="Restore it").click()
    page.get_by_role("button", name="Restore it").click()
    expect(page.get_by_role("button", name="Restore it")).to_have_count(0)
    page.goto("/projects/barge/archive/")
    page.get_by_label("Its name, barge").fill("large")
    page.get_by_role("button", name="Delete in 7 days").click()
    expect(page.get_by_text("needs the name of what goes: barge")).to_be_visible()
    page.get_by_label("Its name, barge").fill("barge")
    page.get_by_role("button", name="Delete in 7 days").click()
    expect(page.get_by_role("heading", name="It is deleted on")).to_be_visible()
