"""Chromium against a real web process; every test ends by asking whether the page complained."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    expect,
    sync_playwright,
)

from tests.ciserver.pages.serving import Stage, open_stage

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# Set up before any script of the page: what moved without being asked, and what the policy blocked.
WATCH = """
{
  window.shifts = [];
  const blocked = (window.blocked = []);
  const moved = (entries) => {
    for (const entry of entries)
      if (!entry.hadRecentInput)
        window.shifts.push([entry.value,
          entry.sources.map((s) => s.node?.outerHTML?.slice(0, 150))]);
  };
  const watcher = new PerformanceObserver((list) => moved(list.getEntries()));
  watcher.observe({type: "layout-shift", buffered: true});
  document.addEventListener("securitypolicyviolation", (event) =>
    blocked.push(event.violatedDirective + " " + event.blockedURI));
  // What there is to complain of once the page is drawn.
  window.settled = async () => {
    await document.fonts.ready;
    for (let frame = 0; frame < 3; frame++) await new Promise(requestAnimationFrame);
    moved(watcher.takeRecords());
    return [...window.shifts, ...blocked];
  };
}
"""

OpenPage = Callable[..., Page]
expect.set_options(timeout=15_000)


@pytest.fixture(scope="package")
def netns() -> Iterator[Path]:
    """A network of its own for Chromium and the pages: it drops what it is loading whenever a link
    comes or goes (ERR_NETWORK_CHANGED), and other tests make links all the time."""
    loopback = ["unshare", "--net", "sh", "-c", "ip link set lo up && echo up && exec sleep inf"]
    with subprocess.Popen(loopback, stdout=subprocess.PIPE) as holder:
        assert holder.stdout and holder.stdout.readline() == b"up\n"
        yield Path(f"/proc/{holder.pid}/ns/net")
        holder.kill()


@pytest.fixture(scope="package")
def stage(netns: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with open_stage(tmp_path_factory.mktemp("browser") / "home", netns=netns) as opened:
        opened("history")
        opened("user", name="bob", role="developer")
        opened("administrator", name="root")
        opened.names = opened("rarities")
        yield opened


@pytest.fixture(scope="package")
def program(netns: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = tmp_path_factory.mktemp("chromium") / "chromium"
    program.write_text(f'#!/bin/sh\nexec nsenter --net={netns} chromium-headless-shell "$@"\n')
    program.chmod(0o755)
    return program


@pytest.fixture(scope="package")
def browser(program: Path) -> Iterator[Browser]:
    """Of the package, not the session: while Playwright runs, this thread has an event loop, and
    tests that come later in the same process could not start one of their own."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield chromium
        chromium.close()


def _complaint(message: ConsoleMessage, grumbles: str) -> list[str]:
    """``grumbles``: what the browser says of answers that a test asks for."""
    missing_on_purpose = "/no/such/" in message.location["url"]
    if message.type not in {"error", "warning"} or missing_on_purpose:
        return []
    if grumbles and re.search(grumbles, message.text):
        return []
    return [f"{message.text} {message.location}"]


@pytest.fixture
def open_page(stage: Stage, browser: Browser) -> Iterator[OpenPage]:
    """``open_page(path, user="alice", width=1280, theme="light", …)``: a page in its own session.

    Afterwards no page may have logged an error, been blocked by the policy, or shifted.
    """
    opened: list[tuple[BrowserContext, Page, list[str]]] = []

    def make(
        path: str,
        *,
        user: str = "alice",
        width: int = 1280,
        theme: str = "light",
        grumbles: str = "",
        **options: bool,
    ) -> Page:
        context = browser.new_context(
            viewport={"width": width, "height": 860},
            color_scheme="dark" if theme == "dark" else "light",
            base_url=stage.url,
            bypass_csp=options.get("bypass_csp", False),
            java_script_enabled=options.get("java_script_enabled", True),
        )
        context.set_default_timeout(15_000)
        context.add_init_script(WATCH)
        if user:
            name, value = next(iter(stage.cookies(user).items()))
            context.add_cookies([{"name": name, "value": value, "url": stage.url}])
        page = context.new_page()
        complaints: list[str] = []
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda message: complaints.extend(_complaint(message, grumbles)))
        opened.append((context, page, complaints))
        page.goto(path)
        return page

    yield make
    for context, page, complaints in opened:
        quiet = page.evaluate("[window.shifts ?? [], window.blocked ?? []]")
        context.close()
        assert complaints == []
        assert quiet == [[], []]
