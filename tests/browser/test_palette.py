"""The palette finds and does by keys alone; without scripts there is a page for it."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from tests.browser.axe import violations
from tests.browser.conftest import OpenPage

pytestmark = pytest.mark.browser


def test_anything_is_a_few_keys_away(open_page: OpenPage) -> None:
    page = open_page("/projects/wiki/")
    page.keyboard.press("Control+k")
    box = page.get_by_role("combobox")
    expect(box).to_be_focused()
    expect(page.get_by_role("option").first).to_have_attribute("aria-selected", "true")
    box.fill("hello #4")
    first = page.get_by_role("option").first
    expect(first).to_contain_text("hello #4")
    assert violations(page) == []
    box.fill("hello")
    expect(page.get_by_role("option", selected=True)).to_contain_text("project")
    page.keyboard.press("ArrowDown")
    chosen = page.get_by_role("option", selected=True)
    expect(chosen).to_contain_text("hello qa")
    assert box.get_attribute("aria-activedescendant") == chosen.get_attribute("id")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowUp")  # from the first to the last
    expect(page.get_by_role("option").last).to_have_attribute("aria-selected", "true")
    box.fill("v3 hello")
    expect(page.get_by_role("option").first).to_contain_text("hello v3")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("/projects/hello/releases/3/$"))


def test_it_closes_and_gives_the_focus_back(open_page: OpenPage) -> None:
    page = open_page("/projects/hello/")
    opener = page.get_by_role("link", name="Find or do")
    opener.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("combobox")).to_be_focused()
    page.get_by_role("combobox").fill("nothing like it")
    expect(page.locator(".palette-status")).to_have_text("Nothing is called “nothing like it”.")
    page.keyboard.press("Escape")
    expect(page.locator(".palette")).not_to_be_visible()
    expect(opener).to_be_focused()


def test_a_slash_goes_to_the_pages_search_or_opens_the_palette(open_page: OpenPage) -> None:
    page = open_page("/registry/", width=360, theme="dark")
    page.keyboard.press("/")
    expect(page.get_by_role("searchbox")).to_be_focused()
    page.keyboard.type("/")  # there it is a letter
    expect(page.get_by_role("searchbox")).to_have_value("/")
    page.goto("/projects/hello/")
    page.keyboard.press("/")
    expect(page.get_by_role("combobox")).to_be_focused()
    expect(page.get_by_role("option").first).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert violations(page) == []


def test_without_scripts_the_same_is_a_page(open_page: OpenPage) -> None:
    page = open_page("/projects/hello/", java_script_enabled=False)
    page.get_by_role("link", name="Find or do").click()
    page.get_by_role("searchbox").fill("hello prod")
    page.keyboard.press("Enter")
    page.get_by_role("link", name="hello prod environment").click()
    expect(page).to_have_url(re.compile("/projects/hello/environments/prod/$"))
