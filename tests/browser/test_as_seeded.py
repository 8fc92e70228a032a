"""What is seen at one look, as it is drawn: marks, timelines, receipts, layers, instructions.

First by its name: later ones promote what this finds as it was seeded.
"""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from ciserver.webhooks.forges import FORGES
from tests.browser.conftest import OpenPage
from tests.ciserver.pages.seeding import digest_of
from tests.ciserver.pages.serving import Stage

pytestmark = pytest.mark.browser

# The colour that is painted and the shape of the mark, of a container or of its chip.
DRAWN = """(svg) => [
    getComputedStyle(svg.querySelector('.box-body') ?? svg).getPropertyValue('--c'),
    svg.querySelector('.box-mark').getAttribute('d')]"""
FILL = "(one) => getComputedStyle(one).fill"
IMAGE = f"/projects/hello/images/{digest_of('hello3')}/"


def test_a_cell_tells_what_runs_there_and_how_it_is(open_page: OpenPage) -> None:
    page = open_page("/")
    cell = page.locator("#row-shop .cell").nth(2)
    expect(cell.get_by_role("img", name=re.compile("^container [0-9a-f]{4} "))).to_be_visible()
    expect(cell).to_contain_text(re.compile(r"v1\s*[0-9a-f]{8}\s*1 d ago"))
    expect(cell).to_contain_text("unhealthy")
    expect(cell).to_contain_text("behind by 2")
    outline = cell.locator(".cell-box").evaluate("(one) => getComputedStyle(one).outlineStyle")
    assert outline == "solid"
    expect(page.locator(".summary")).to_contain_text("1 unhealthy")


def test_a_digest_has_one_colour_and_one_mark_wherever_it_is_drawn(open_page: OpenPage) -> None:
    page = open_page("/")
    of_v5 = page.locator("#row-hello .cell").nth(0).locator("svg.box").evaluate(DRAWN)
    of_next = page.locator("#row-hello .cell").nth(1).locator("svg.box").evaluate(DRAWN)
    assert of_v5 != of_next
    promote = page.locator("#row-hello").get_by_role("link", name="Promote v5")
    assert promote.locator("svg").evaluate(DRAWN) == of_v5
    promote.click()
    assert page.locator("dialog svg.box").first.evaluate(DRAWN) == of_next
    assert page.locator("dialog svg.box").last.evaluate(DRAWN) == of_v5
    page.goto("/projects/hello/releases/3/")
    of_v3 = page.locator("svg.box").first.evaluate(DRAWN)
    assert of_v3 != of_v5
    page.goto(IMAGE)
    assert page.locator("svg.box").first.evaluate(DRAWN) == of_v3
    page.goto("/projects/hello/pipelines/")
    chip = page.locator("#pipeline-3 svg.chip")
    assert chip.evaluate(DRAWN) == of_v3
    page.emulate_media(color_scheme="dark")
    assert chip.evaluate(DRAWN) == of_v3


def test_the_matrix_is_searched_and_filtered(open_page: OpenPage) -> None:
    page = open_page("/")
    page.keyboard.press("/")
    page.keyboard.type("sho")
    page.keyboard.press("Enter")
    expect(page.locator("#row-shop")).to_be_visible()
    expect(page.locator("#row-hello")).to_have_count(0)
    page.goto("/")
    page.get_by_role("link", name="Unhealthy").click()
    expect(page.locator("#row-shop")).to_be_visible()
    expect(page.locator("#row-hello")).to_have_count(0)


def test_jobs_show_what_they_waited_for_and_steps_from_the_cache_are_hollow(
    open_page: OpenPage,
) -> None:
    page = open_page("/projects/hello/pipelines/5/?job=build")
    waited = page.locator("#j2-tab .wait")
    ran = page.locator("#j2-tab .fill")
    assert left(waited) + width(waited) == pytest.approx(left(ran), abs=2)
    assert left(ran) >= left(page.locator("#j1-tab .fill")) + width(page.locator("#j1-tab .fill"))
    cached = page.locator("#j1-steps .tick.is-cached .fill")
    assert {one.evaluate(FILL) for one in cached.all()} == {"none"}
    assert cached.count() == 4
    built = page.locator("#j1-steps .tick.is-passed .fill").last
    assert built.evaluate(FILL) != "none"


def left(one: object) -> float:
    return float(one.get_attribute("x"))  # type: ignore[attr-defined]


def width(one: object) -> float:
    return float(one.get_attribute("width"))  # type: ignore[attr-defined]


def test_a_failed_pipeline_opens_at_its_error(open_page: OpenPage) -> None:
    page = open_page("/projects/hello/pipelines/6/")
    expect(page.locator("#j2-tab")).to_have_attribute("aria-current", "true")
    expect(page.locator("#j2-L37")).to_be_in_viewport()  # the step is open, at its end
    outcomes = page.locator("#j2 .case .state").evaluate_all(
        "(all) => all.map((one) => one.getAttribute('aria-label'))"
    )
    assert outcomes.index("passed") == outcomes.count("failed")  # failed ones first
    page.get_by_role("link", name="First error").click()
    expect(page.locator(".l.marked, .l:target")).to_contain_text(re.compile("FAILED|Error"))


def test_steps_fold_and_lines_are_reached_by_keys(open_page: OpenPage) -> None:
    page = open_page("/projects/hello/pipelines/6/")
    summary = page.locator("#j2-s1 > summary")
    summary.focus()
    page.keyboard.press("Enter")
    expect(page.locator("#j2-L40")).not_to_be_visible()
    page.keyboard.press("Enter")
    expect(page.locator("#j2-L40")).to_be_visible()
    page.locator("#j2-L40 a").focus()
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("L40$"))
    expect(page.locator("#j2-L40")).to_have_class(re.compile("marked"))


def test_a_receipt_draws_how_near_its_limit_a_step_came(open_page: OpenPage) -> None:
    page = open_page("/projects/hello/pipelines/6/")
    memory = page.locator("#j2-receipts tbody td").first
    expect(memory).to_contain_text("143 MiB of 512 MiB")
    used = memory.locator(".gauge .fill").bounding_box()
    limit = memory.locator(".gauge .limit").bounding_box()
    whole = memory.locator(".gauge").bounding_box()
    assert used and limit and whole
    share = used["width"] / (limit["x"] + limit["width"] / 2 - whole["x"])
    assert share == pytest.approx(143 / 512, abs=0.03)


def test_a_layer_map_draws_bytes_by_line_and_hatches_what_is_wasted(open_page: OpenPage) -> None:
    page = open_page(IMAGE)
    layers = page.locator(".layer-map .layer")
    widths = [one.bounding_box()["width"] for one in layers.all()]  # type: ignore[index]
    whole = page.locator(".layer-map").bounding_box()
    assert whole
    assert sum(widths) == pytest.approx(whole["width"], rel=0.02)
    assert widths == sorted(widths, reverse=True)  # 12 MiB, 3.9 MiB, 78 KiB
    assert page.locator(".layer-map .lost").evaluate(FILL).startswith("url(")
    row = page.locator(".layers tbody tr", has_text="Dockerfile:4")
    expect(row).to_contain_text("3.0 MiB")  # wasted
    expect(row.get_by_role("link", name="hello")).to_be_visible()  # shared with


def test_each_forge_has_instructions_to_copy(stage: Stage, open_page: OpenPage) -> None:
    page = open_page("/projects/wiki/")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    folds = page.locator("#connect details.fold")
    expect(folds).to_have_count(len(FORGES))
    copied = []
    for fold in folds.all():
        fold.locator("summary").click()
        expect(fold.locator("p")).to_be_visible()
        fold.get_by_role("button", name=re.compile("^Copy webhook address")).click()
        copied.append(page.evaluate("navigator.clipboard.readText()"))
    assert sorted(copied) == sorted(f"{stage.url}/hooks/{forge}/wiki/" for forge in FORGES)
    forget_shifts(page)


def test_settings_lead_to_one_another_and_are_folded_out_of_the_way(open_page: OpenPage) -> None:
    page = open_page("/projects/hello/#connect")
    expect(page.locator("#connect")).to_be_visible()  # a link into it opens it
    page.goto("/projects/hello/")
    expect(page.locator("#connect")).not_to_be_visible()  # there have been pushes
    page.locator("#settings").get_by_role("link", name="Members").click()
    for name in ("Secrets", "Building", "Commit statuses", "Webhooks", "Repository"):
        there = page.get_by_role("navigation", name="Settings of hello")
        there.get_by_role("link", name=name).click()
        expect(there.locator("[aria-current]")).to_have_text(name)


def test_a_menu_closes_by_escape_and_gives_the_focus_back(open_page: OpenPage) -> None:
    page = open_page("/")
    menu = page.locator("details.menu summary")
    menu.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("link", name="Your tokens")).to_be_visible()
    page.keyboard.press("Tab")
    page.keyboard.press("Escape")
    expect(page.get_by_role("link", name="Your tokens")).not_to_be_visible()
    expect(menu).to_be_focused()


def test_the_api_is_found_and_tried_from_its_page(stage: Stage, open_page: OpenPage) -> None:
    page = open_page("/api/docs/")
    page.get_by_role("searchbox").fill("promote post")
    page.keyboard.press("Enter")
    page.get_by_role("link", name="/api/v1/releases/{id}/promote/").click()
    operation = page.locator("#releases_promote_create")
    expect(operation).to_be_in_viewport()
    command = operation.locator(".copy code").inner_text()
    assert command.startswith('curl -X POST -H "Authorization: Bearer $GANTRY_TOKEN"')
    assert f"{stage.url}/api/v1/releases/{{id}}/promote/" in command
    operation.get_by_role("link", name="Where").click()
    expect(page.locator("#form-Where")).to_be_in_viewport()
    expect(page.locator("#form-Where")).to_contain_text("environment")


def forget_shifts(page: Page) -> None:
    """What was unfolded moves what is below it, by our hand."""
    page.evaluate("window.shifts = []")
