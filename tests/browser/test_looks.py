"""Every page in both themes and down to 360 px: readable, quiet, and nothing out of place."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Literal

import pytest
from playwright.sync_api import Page, Route, expect

from ciserver.lib.http import POLICY
from tests.browser import scripts
from tests.browser.axe import violations
from tests.browser.conftest import OpenPage
from tests.ciserver.pages.addresses import PAGES, WHEN_WRONG
from tests.ciserver.pages.serving import Stage

pytestmark = pytest.mark.browser

WIDEST = 1280
# A phone and a tablet; WIDEST at 400 % and at 200 % is as many pixels of a page as 320 and 640.
NARROW = (320, 360, 640, 768)
THEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
ABOUT_ALL = ("/", "/hosts/local/", "/registry/", "/registry/?q=team", "/tokens/")
CONTRASTS = ("color-contrast",)  # half of axe's time, for what scripts.CONTRAST asks in each theme
SHARES = 6  # of the pages: all at once take minutes on a busy machine
OPEN = "(which) => document.querySelectorAll(which).forEach((one) => (one.open = true))"
REST = "() => { for (const one of document.getAnimations()) one.cancel(); }"

Wrong = dict[str, list[Any]]


def every_page(page: Page, stage: Stage, share: int) -> Iterator[str]:
    """Goes to each page of a share as who looks at it, and yields its path once it is drawn."""
    page.route("**/no/such/*.html", lambda route: _draw(route, stage))
    pages = [*PAGES, *(("alice", f"/no/such/{name}") for name in WHEN_WRONG)]
    now = None
    for user, path in sorted(pages[share::SHARES], key=lambda one: one[0]):
        if user != now:
            now = user
            page.context.clear_cookies()
            cookies = stage.cookies(user).items() if user else ()
            page.context.add_cookies(
                [{"name": name, "value": value, "url": stage.url} for name, value in cookies]
            )
        answer = page.goto(path.format(**stage.names))
        assert answer is not None
        assert answer.header_value("Content-Security-Policy") == POLICY, path
        yield f"{path} of {user or 'nobody'}"


def _draw(route: Route, stage: Stage) -> None:
    name = route.request.url.rpartition("/")[2]
    route.fulfill(
        status=int(name[:3]) if name[:3].isdigit() else 409,
        body=stage("drawn", name=name),
        content_type="text/html",
        headers={"Content-Security-Policy": POLICY},
    )


@pytest.mark.parametrize("share", range(SHARES))
def test_every_page_is_quiet_and_can_be_read_and_reached_at_any_width(
    stage: Stage, open_page: OpenPage, share: int
) -> None:
    """Loaded as a phone and as a desk has it, and narrowed there: axe's own script takes longer to
    load than a page, and its second look at one is the shorter."""
    page = open_page("/login/", width=360, user="")
    wrong: Wrong = {}
    for path in every_page(page, stage, share):
        found = wrong[path] = page.evaluate("settled()")
        size(page, WIDEST)
        page.reload()
        found += page.evaluate("settled()")
        ask(page, found, scripts.BONES, scripts.STRANGERS, scripts.HEAVY, scripts.NAMELESS)
        for width in (*NARROW, WIDEST):
            size(page, width)
            ask(page, found, scripts.WIDE, scripts.CROWDED, scripts.BROKEN)
        for _ in range(page.evaluate(scripts.WATCH_FOCUS)):
            page.keyboard.down("Tab")  # held, it goes on
        page.keyboard.up("Tab")
        ask(page, found, scripts.UNREACHED)
        # A menu lies over the page: what it covers is no target while it is open.
        page.evaluate(OPEN, "main details")
        found += violations(page, but=CONTRASTS)
        for width in (WIDEST, 360):
            size(page, width)
            page.evaluate(OPEN, "details")
            for theme in THEMES:
                page.emulate_media(color_scheme=theme)
                page.evaluate(REST)
                ask(page, found, scripts.CONTRAST)
        page.evaluate("document.querySelectorAll('.menu').forEach((one) => (one.open = false))")
        found += violations(page, but=CONTRASTS)
        page.emulate_media(color_scheme="light")
        page.evaluate("window.shifts = []")  # opening everything at once moves things, by our hand
    assert not any(wrong.values()), told(wrong)


def test_names_as_long_as_may_be_make_no_page_wider(stage: Stage, open_page: OpenPage) -> None:
    long = {"slug": "w" * 63, "place": "m" * 63, "job": "q" * 63}
    short = {"slug": "hello", "place": "prod", "job": "unit"}
    wrong: Wrong = {}
    stage("rename", old=short, new=long)
    try:
        page = open_page("/")
        for user, path in PAGES:
            if user != "alice" or not ("hello" in path or path in ABOUT_ALL):
                continue
            answer = page.goto(_renamed(path, short, long).format(**stage.names))
            assert answer is not None and answer.ok, path
            found = wrong[path] = []
            for width in (320, 360, WIDEST):
                size(page, width)
                ask(page, found, scripts.WIDE)
    finally:
        stage("rename", old=long, new=short)
    assert not any(wrong.values()), told(wrong)


def _renamed(path: str, old: dict[str, str], new: dict[str, str]) -> str:
    for kind, name in old.items():
        path = path.replace(f"/{name}/", f"/{new[kind]}/").replace(f"={name}", f"={new[kind]}")
    return path


def told(wrong: Wrong) -> str:
    return json.dumps({path: found for path, found in wrong.items() if found}, indent=1)


def size(page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 860})


def ask(page: Page, found: list[Any], *questions: str) -> None:
    for question in questions:
        found += page.evaluate(question)


def test_what_moves_by_itself_would_be_seen(open_page: OpenPage) -> None:
    """The watch of every other test, on a page that does move."""
    page = open_page("/")
    page.evaluate(
        "document.querySelector('main').prepend(Object.assign("
        "document.createElement('p'), {textContent: 'late', style: 'height: 9rem'}))"
    )
    assert len(page.evaluate("settled()")) == 1
    page.evaluate("window.shifts = []")


def test_the_theme_is_chosen_once_and_drawn_by_the_server(open_page: OpenPage) -> None:
    page = open_page("/", theme="light")
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    page.get_by_role("button", name="Change colour theme").click()
    dark = page.evaluate(ground)
    assert light != dark
    answer = page.reload()
    assert answer is not None
    assert 'data-theme="dark"' in answer.text()
    assert page.evaluate(ground) == dark


def test_nothing_turns_for_who_wants_no_motion(open_page: OpenPage) -> None:
    page = open_page("/projects/search/pipelines/1/")  # it runs
    moving = "document.getAnimations().filter((one) => one.playState === 'running').length"
    assert page.evaluate(moving) > 0
    page.emulate_media(reduced_motion="reduce")
    assert page.evaluate(moving) == 0


def test_copying_says_that_it_copied(open_page: OpenPage) -> None:
    page = open_page("/projects/hello/")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy clone address").click()
    expect(page.locator("#announce")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()").endswith("/git/hello.git")
