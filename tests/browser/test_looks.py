"""Every page in both themes and down to 360 px: readable, quiet, and nothing out of place."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from tests.browser.axe import violations
from tests.browser.conftest import OpenPage
from tests.ciserver.pages.seeding import digest_of
from tests.ciserver.pages.serving import PASSWORD

pytestmark = pytest.mark.browser

WIDEST = 1280
IMAGE = f"/projects/hello/images/{digest_of('hello3')}/"
PAGES = [
    "/login/",
    "/",
    "/projects/hello/",
    "/projects/wiki/",
    "/projects/hello/pipelines/",
    "/projects/hello/releases/",
    "/projects/hello/environments/qa/deployments/",
    "/tokens/",
    "/new-project/",
    "/projects/hello/pipelines/6/",
    "/projects/hello/pipelines/5/?job=build",
    "/projects/hello/releases/3/",
    "/projects/hello/releases/5/promote/prod/",
    "/projects/hello/environments/prod/",
    "/projects/hello/environments/prod/edit/",
    "/projects/hello/new-environment/",
    "/projects/hello/audit/",
    "/projects/hello/tests/",
    "/projects/hello/deliveries/",
    "/projects/hello/repository/",
    "/projects/hello/secrets/",
    "/projects/hello/building/",
    "/projects/hello/members/",
    "/account/",
    "/projects/hello/statuses/",
    "/projects/hello/environments/prod/secrets/",
    "/hosts/",
    "/search/?q=hello",
    "/registry/",
    "/registry/?q=team",
    "/projects/hello/images/",
    IMAGE,
    f"/projects/hello/images/compare/?old={digest_of('hello2')}&new={digest_of('hello5')}",
    "/hosts/local/",
    "/projects/hello/pipelines/6/jobs/2/lines",
    "/projects/hello/webhooks/",
    "/projects/hello/deliveries/1/",
    "/projects/hello/pipelines/next/",
    "/projects/hello/pipelines/5/coverage/",
    "/projects/hello/pipelines/6/jobs/2/lines?q=failed",
    "/projects/hello/tests/?name=test_greets_by_name&suite=tests.test_greeting",
    "/projects/hello/releases/2/roll-back/prod/",
    "/projects/hello/environments/prod/containers/restart/?host=local",
    "/projects/search/pipelines/1/",
    "/no/such/page/",
]
OF_ADMINISTRATORS = ["/users/", "/users/alice/", "/teams/", "/audit/", "/hosts/", "/hosts/local/"]
# WCAG 2.2, 1.4.3: 4.5 to 1 for text, 3 to 1 where it is large. Colours are read from a canvas,
# because getComputedStyle answers oklch() and light-dark() in their own words.
CONTRAST = """
() => {
  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = (ink, ground) => [0, 1, 2].map((i) => ink[i] * ink[3] + ground[i] * (1 - ink[3]));
  const light = (rgb) => {
    const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    const [r, g, b] = rgb.map((v) => linear(v / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ratio = (a, b) => {
    const [high, low] = [light(a), light(b)].sort((x, y) => y - x);
    return (high + 0.05) / (low + 0.05);
  };
  const behind = (element) => {
    const layers = [];
    for (let node = element; node; node = node.parentElement) {
      const box = node.tagName === "svg" && getComputedStyle(node).getPropertyValue("--c");
      if (box) layers.push(rgba(box));
      layers.push(rgba(getComputedStyle(node).backgroundColor));
      if (layers.at(-1)[3] === 1) break;
    }
    return layers.reverse().reduce((base, layer) => over(layer, base), [255, 255, 255]);
  };
  const bad = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode.data.trim();
    const element = walker.currentNode.parentElement;
    if (!text || !element.checkVisibility({visibilityProperty: true})) continue;
    if (element.closest(".sr, .skip, script, template, [aria-hidden]")) continue;
    const style = getComputedStyle(element);
    const ground = behind(element);
    const ink = rgba(element.tagName === "text" ? style.fill : style.color);
    ink[3] *= Number(style.opacity);
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    const found = ratio(over(ink, ground), ground);
    if (found < (large ? 3 : 4.5))
      bad.push(`${found.toFixed(2)} ${element.className} ${text.slice(0, 40)}`);
  }
  return bad;
}
"""

OPEN = "(which) => document.querySelectorAll(which).forEach((one) => (one.open = true))"


# Text that buttons squeezed, headings below buttons, and tables that one has to push sideways.
CROWDED = """
() => {
  const bad = [];
  const boxes = [...document.querySelectorAll("main a, main button")]
    .filter((one) => one.checkVisibility() && !one.closest("h1, .log, .timeline, .jobs"));
  for (const heading of document.querySelectorAll("h1:not(.sr), h2:not(.sr)")) {
    if (!heading.checkVisibility()) continue;
    const range = document.createRange();
    range.selectNodeContents(heading);
    const box = range.getBoundingClientRect();
    const line = parseFloat(getComputedStyle(heading).lineHeight);
    if (box.height > 3.5 * line) bad.push(`${heading.innerText} takes ${box.height} px`);
    for (const other of boxes) {
      if (heading.contains(other)) continue;
      const its = other.getBoundingClientRect();
      const apart = its.right <= box.left || its.left >= box.right
        || its.bottom <= box.top || its.top >= box.bottom;
      if (!apart) bad.push(`${heading.innerText} lies below ${other.innerText}`);
    }
  }
  for (const wrap of document.querySelectorAll(".table-wrap"))
    if (wrap.scrollWidth > wrap.clientWidth + 1)
      bad.push(`${wrap.getAttribute("aria-label")} is ${wrap.scrollWidth} px wide`);
  return bad;
}
"""


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [WIDEST, 768, 360])
def test_pages_fit_and_can_be_read(open_page: OpenPage, theme: str, width: int) -> None:
    page = open_page("/login/", width=width, theme=theme, user="")
    for path in PAGES:
        if path == "/":
            sign_in(page)
        page.goto(path)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path
        assert page.evaluate(CROWDED) == [], path
        page.evaluate(OPEN, "details")
        if width == WIDEST:  # colours are the same at each width
            assert page.evaluate(CONTRAST) == [], path
        page.evaluate("window.shifts = []")  # opening everything at once moves things, by our hand


def test_every_control_has_a_name_and_every_page_one_heading(open_page: OpenPage) -> None:
    page = open_page("/login/", user="")
    for path in PAGES:
        if path == "/":
            sign_in(page)
        page.goto(path)
        assert page.locator("h1").count() == 1, path
        assert page.locator("main").count() == 1, path
        assert page.locator("html").get_attribute("lang") == "en"
        nameless = page.evaluate(
            """() => [...document.querySelectorAll("a[href], button, input:not([type=hidden])")]
                .filter((one) => one.checkVisibility())
                .filter((one) => !(one.innerText?.trim() || one.getAttribute("aria-label")
                    || one.labels?.length || one.querySelector("[aria-label], .sr, title")))
                .map((one) => one.outerHTML.slice(0, 120))"""
        )
        assert nameless == [], path
        twice = page.evaluate(
            """() => [...document.querySelectorAll("[id]")].map((one) => one.id)
                .filter((id, index, all) => all.indexOf(id) !== index)"""
        )
        assert twice == [], path


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("third", range(3))  # all at once take minutes on a busy machine
def test_axe_finds_nothing_against_wcag_2_2_aa(open_page: OpenPage, theme: str, third: int) -> None:
    page = open_page("/login/", theme=theme, user="")
    rules = () if theme == "light" else ("color-contrast", "link-in-text-block")  # all that differs
    found = {}
    for path in ("/login/", *PAGES[1:][third::3]):
        page.goto(path)
        # A menu lies over the page: what it covers is no target while it is open.
        page.evaluate(OPEN, "details" if path == "/" else "main details")
        if wrong := violations(page, *rules):
            found[path] = wrong
        page.evaluate("window.shifts = []")  # opening everything at once moves things, by our hand
        if path == "/login/":
            sign_in(page)
    assert found == {}


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_pages_of_administrators_are_as_good(open_page: OpenPage, theme: str) -> None:
    narrow = open_page("/users/", user="root", theme=theme, width=360)
    wide = open_page("/users/", user="root", theme=theme)
    for path in OF_ADMINISTRATORS:
        narrow.goto(path)
        assert narrow.evaluate("document.documentElement.scrollWidth") <= 360, path
        assert narrow.evaluate(CROWDED) == [], path
        wide.goto(path)
        assert wide.evaluate(CONTRAST) == [], path
        assert violations(wide) == [], path


def sign_in(page: Page) -> None:
    page.get_by_label("Name").fill("alice")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    expect(page.locator("#live")).to_be_visible()


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


def test_the_first_load_of_each_page_is_small_and_asks_no_other_host(open_page: OpenPage) -> None:
    page = open_page("/")
    origin = page.evaluate("location.origin")
    for path in PAGES:
        page.goto(path)
        loaded = page.evaluate(
            """() => [...performance.getEntriesByType("navigation"),
                      ...performance.getEntriesByType("resource")]
                .map((entry) => [entry.name, entry.decodedBodySize])"""
        )
        assert all(name.startswith(origin) for name, _ in loaded), path
        assert 1000 < sum(size for _, size in loaded) <= 150_000, path


def test_nothing_turns_for_who_wants_no_motion(open_page: OpenPage) -> None:
    page = open_page("/")
    page.emulate_media(reduced_motion="reduce")
    moving = page.evaluate(
        "document.getAnimations().filter((one) => one.playState === 'running').length"
    )
    assert moving == 0


def test_copying_says_that_it_copied(open_page: OpenPage) -> None:
    page = open_page("/projects/hello/")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy clone address").click()
    expect(page.locator("#announce")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()").endswith("/git/hello.git")
