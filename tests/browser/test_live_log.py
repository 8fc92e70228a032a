"""A log is watched while it grows."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Route, expect

from tests.browser.conftest import OpenPage
from tests.ciserver.pages.serving import Stage

pytestmark = pytest.mark.browser


@pytest.mark.parametrize("width", [1280, 360])
def test_a_log_arrives_live_and_ends_in_red(stage: Stage, open_page: OpenPage, width: int) -> None:
    pipeline = stage("start", title="Watch me fail")
    page = open_page(f"/projects/hello/pipelines/{pipeline['number']}/", width=width)
    verdict = page.locator("#verdict")
    expect(verdict).to_contain_text("RUN make")
    for number in range(1, 101):
        stage("number_lines", pipeline=pipeline["id"], first=number, last=number)
    expect(page.locator("#j1-L100")).to_have_text("100line 100.")
    expect(page.locator("#j1-L100")).to_be_in_viewport()  # the log follows its end
    stage("write", pipeline=pipeline["id"], text="\x1b[31mmake: *** [all] Error 2\x1b[0m\n")
    expect(page.locator("#j1-L101 .f1")).to_have_text("make: *** [all] Error 2")
    stage("more_jobs", pipeline=pipeline["id"])
    expect(page.locator("#jobs .job")).to_have_count(3)
    stage(
        "fail", pipeline=pipeline["id"], reason="RUN make ended with exit code 2.",
        place="Dockerfile:2", hint="The step's last lines are in the log.",
    )  # fmt: skip
    expect(verdict.locator("h2")).to_have_text("build failed")
    expect(verdict).to_contain_text("Dockerfile:2")
    expect(verdict).to_contain_text("RUN make ended with exit code 2.")
    expect(page.locator("#j1-s2 > summary")).to_contain_text("exit 2")
    expect(page.locator("#cancel-form")).not_to_be_visible()
    assert page.locator(".l").count() == 101
    assert page.title().startswith(f"#{pipeline['number']} Watch me fail")


def test_a_page_that_opens_in_the_middle_shows_the_start_once(
    stage: Stage, open_page: OpenPage
) -> None:
    pipeline = stage("start")
    stage("number_lines", pipeline=pipeline["id"], first=1, last=50)
    page = open_page(f"/projects/hello/pipelines/{pipeline['number']}/")
    stage("number_lines", pipeline=pipeline["id"], first=51, last=100)
    expect(page.locator("#j1-L100")).to_be_attached()
    stage("finish", pipeline=pipeline["id"])
    expect(page.locator("#verdict h2")).to_have_text("Passed")
    texts = page.locator(".l").all_text_contents()
    assert texts == [f"{number}line {number}.\n" for number in range(1, 101)]


@pytest.mark.parametrize("waiting", [False, True])
def test_a_page_goes_on_after_an_answer_that_is_no_stream(
    stage: Stage, open_page: OpenPage, waiting: bool
) -> None:
    """As a proxy answers while the service behind it is being upgraded: no browser asks again."""
    pipeline = None if waiting else stage("start")
    page = open_page("/")
    asked: list[str] = []

    def refuse_the_first(route: Route) -> None:
        asked.append(route.request.url)
        if len(asked) == 1:
            route.fulfill(status=204)
        else:
            route.continue_()

    page.route("**/events?*", refuse_the_first)
    page.goto(f"/projects/hello/pipelines/{pipeline['number'] if pipeline else 'next'}/")
    pipeline = pipeline or stage("start")
    stage("number_lines", pipeline=pipeline["id"], first=1, last=5)
    expect(page.locator("#j1-L5")).to_have_text("5line 5.")
    stage("finish", pipeline=pipeline["id"])
    expect(page.locator("#verdict h2")).to_have_text("Passed")
    assert page.locator(".l").count() == 5
    assert len(asked) == 2


def test_the_layer_map_appears_once_the_image_was_read(stage: Stage, open_page: OpenPage) -> None:
    pipeline = stage("start")
    page = open_page(f"/projects/hello/pipelines/{pipeline['number']}/")
    stage("finish", pipeline=pipeline["id"])
    expect(page.locator("#verdict h2")).to_have_text("Passed")
    stage("read_image", pipeline=pipeline["id"])
    expect(page.locator("#layers .layer-map")).to_be_visible()
    expect(page.locator("#layers")).to_have_count(1)


def test_scrolling_back_stops_following(stage: Stage, open_page: OpenPage) -> None:
    pipeline = stage("start")
    page = open_page(f"/projects/hello/pipelines/{pipeline['number']}/")
    stage("number_lines", pipeline=pipeline["id"], first=1, last=300)
    expect(page.locator("#j1-L300")).to_be_in_viewport()
    page.locator("#j1-log").hover()
    page.mouse.wheel(0, -2000)
    expect(page.locator("#j1 [data-follow]")).not_to_be_checked()
    stage("number_lines", pipeline=pipeline["id"], first=301, last=400)
    expect(page.locator("#j1-L400")).to_be_attached()
    expect(page.locator("#j1-L400")).not_to_be_in_viewport()
    page.locator("#j1 [data-follow]").check()
    expect(page.locator("#j1-L400")).to_be_in_viewport()
    stage("finish", pipeline=pipeline["id"])


def test_a_line_has_an_address_even_far_above_what_is_shown(
    stage: Stage, open_page: OpenPage
) -> None:
    pipeline = stage("start")
    stage("number_lines", pipeline=pipeline["id"], first=1, last=5000)
    stage("finish", pipeline=pipeline["id"])
    url = f"/projects/hello/pipelines/{pipeline['number']}/"
    page = open_page(f"{url}#L1234")
    expect(page).to_have_url(re.compile(r"/lines\?line=1234#j1-L1234$"))
    line = page.locator("#j1-L1234")
    expect(line).to_be_in_viewport()
    assert page.locator(":target").get_attribute("id") == "j1-L1234"
    expect(line).to_contain_text("line 1234.")
    texts = page.locator(".l > a").all_text_contents()
    assert [int(text) for text in texts] == sorted(int(text) for text in texts)
    assert len(texts) == len(set(texts))
    page.locator("#j1-L1240 a").click()
    assert page.url.endswith("#j1-L1240")


def test_timestamps_and_folding_work_and_are_remembered(stage: Stage, open_page: OpenPage) -> None:
    page = open_page("/projects/hello/pipelines/6/")
    expect(page.locator("#j2-s1")).to_have_attribute("open", "")
    page.locator("#j2-s1 > summary").click()
    expect(page.locator("#j2-L1")).not_to_be_visible()
    page.locator("#j2 [data-timestamps]").check()
    page.reload()
    expect(page.locator("#j2 [data-timestamps]")).to_be_checked()
    shown = page.locator("#j2-L1 a").evaluate("(a) => getComputedStyle(a, '::after').content")
    assert re.fullmatch(r'"\d:\d\d\.\d{3}"', shown)


def test_jobs_are_tabs_with_addresses(stage: Stage, open_page: OpenPage) -> None:
    page = open_page("/projects/hello/pipelines/6/")
    expect(page.locator("#j2")).to_be_visible()
    page.locator("#jobs .job", has_text="build").click()
    expect(page.locator("#j1")).to_be_visible()
    expect(page.locator("#j2")).not_to_be_visible()
    assert page.url.endswith("?job=build")
    page.reload()
    expect(page.locator("#j1")).to_be_visible()
    page.locator("#j1-steps a", has_text="compileall").click()
    expect(page.locator("#j1-s6")).to_have_attribute("open", "")
    expect(page.locator("#j1-L2")).to_contain_text("Compiling")


def test_hostile_lines_stay_text_when_they_come_live(stage: Stage, open_page: OpenPage) -> None:
    pipeline = stage("start", title="<img src=x onerror='window.pwned=1'>")
    page = open_page(f"/projects/hello/pipelines/{pipeline['number']}/")
    payload = "</template></span><script>window.pwned=1</script><img src=x onerror=window.pwned=1>"
    stage("write", pipeline=pipeline["id"], text=f"{payload}\n\x1b[1m{payload}\n")
    stage("fail", pipeline=pipeline["id"], reason=payload, place=payload, hint=payload)
    expect(page.locator("#verdict .why")).to_contain_text("<script>window.pwned=1</script>")
    expect(page.locator("#j1-L1")).to_contain_text(payload)
    expect(page.locator("#j1-L2")).to_contain_text(payload)
    assert page.evaluate("window.pwned") is None
