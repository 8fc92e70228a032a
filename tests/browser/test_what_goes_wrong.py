"""What people see while the server does not answer, or answers that it will not."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, Route, expect

from tests.browser.conftest import OpenPage
from tests.ciserver.pages.serving import Stage

pytestmark = pytest.mark.browser


def cut(page: Page, addresses: str) -> None:
    page.route(addresses, lambda route: route.abort())


def mend(page: Page, addresses: str) -> None:
    page.unroute(addresses)


def test_a_matrix_that_cannot_be_kept_right_says_so_until_it_can(open_page: OpenPage) -> None:
    page = open_page("/", grumbles="503|ERR_FAILED")
    quiet: list[str] = []

    def fail(route: Route) -> None:
        quiet.append(route.request.url)
        route.fulfill(status=503)

    page.route("**/", fail)
    expect(page.locator("#connection")).to_be_visible()
    expect(page.locator("#connection")).to_contain_text("what is shown may be old")
    expect(page.locator("#announce")).to_contain_text("Not connected")
    assert quiet
    page.unroute("**/")
    expect(page.locator("#connection")).not_to_be_visible()
    expect(page.locator("#announce")).to_have_text("Connected again")


def test_a_slow_server_is_asked_once_at_a_time(open_page: OpenPage) -> None:
    page = open_page("/", grumbles="ERR_FAILED")
    asked: list[Route] = []
    page.route("**/", lambda route: asked.append(route))  # noqa: PLW0108 - Playwright sets it a name
    page.wait_for_timeout(7000)
    assert len(asked) == 1
    asked[0].abort()
    expect(page.locator("#connection")).to_be_visible()
    page.unroute("**/")
    expect(page.locator("#connection")).not_to_be_visible()


def test_a_log_whose_stream_broke_off_says_so_and_goes_on(
    stage: Stage, open_page: OpenPage
) -> None:
    pipeline = stage("start")
    page = open_page("/", grumbles="ERR_FAILED")
    cut(page, "**/events*")
    page.goto(f"/projects/hello/pipelines/{pipeline['number']}/")
    expect(page.locator("#connection")).to_be_visible()
    mend(page, "**/events*")
    stage("number_lines", pipeline=pipeline["id"], first=1, last=3)
    expect(page.locator("#j1-L3")).to_be_visible()
    expect(page.locator("#connection")).not_to_be_visible()
    stage("finish", pipeline=pipeline["id"])
    expect(page.locator("#verdict h2")).to_have_text("Passed")


def test_who_signed_in_again_is_led_back_to_the_project(open_page: OpenPage) -> None:
    page = open_page("/projects/search/", grumbles="405")
    page.context.clear_cookies()
    page.goto("/login/?next=/projects/search/hook-secret/")
    page.get_by_label("Name").fill("alice")
    page.get_by_label("Password").fill("alice-password-1")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", name="This address only takes a form")).to_be_visible()
    page.get_by_role("link", name="Go to the project").click()
    expect(page.get_by_role("heading", name="search", exact=True)).to_be_visible()


def test_a_form_that_is_too_large_says_how_much_it_may_be(open_page: OpenPage) -> None:
    page = open_page("/projects/search/secrets/", grumbles="413")
    page.get_by_label("Name").fill("LARGE")
    page.get_by_label("Value").evaluate("(box) => { box.value = 'x'.repeat(2.5 * 1024 * 1024); }")
    page.get_by_role("button", name="Set secret").click()
    expect(page.get_by_role("main")).to_contain_text("A form takes up to 2.0 MiB")
    expect(page.get_by_role("link", name="Go to the overview")).to_be_visible()


def test_whoever_guesses_passwords_is_told_how_long_to_wait(
    stage: Stage, open_page: OpenPage
) -> None:
    stage("guessed", name="mallory", times=9)
    page = open_page("/login/", user="", grumbles="429")
    for words in ("do not belong together", "Try again in 15 min"):
        page.get_by_label("Name").fill("mallory")
        page.get_by_label("Password").fill("a guess")
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("alert")).to_contain_text(words)
