"""Pictures for the README from a running Gantry: ``python docs/screenshots.py URL NAME PASSWORD``.

Takes the matrix, the newest pipeline and the newest release that the account may see.
Needs Playwright and a Chromium; GANTRY_CHROMIUM names another than Debian's.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

IMAGES = Path(__file__).parent / "images"
WIDTH, HEIGHT, SCALE = 1200, 760, 1.25
MAX_BYTES = 200_000
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]


def main(url: str, name: str, password: str) -> None:
    IMAGES.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=os.environ.get("GANTRY_CHROMIUM", "/usr/bin/chromium-headless-shell"),
            args=FLAGS,
        )
        for theme, suffix in (("light", ""), ("dark", "-dark")):
            context = chromium.new_context(
                viewport={"width": WIDTH, "height": HEIGHT},
                device_scale_factor=SCALE,
                color_scheme="dark" if theme == "dark" else "light",
                base_url=url,
            )
            page = context.new_page()
            sign_in(page, name, password)
            take(page, f"matrix{suffix}")
            visit(page, r"/pipelines/\d+/$")
            take(page, f"pipeline{suffix}")
            page.goto("/")
            visit(page, r"/releases/\d+/$")
            take(page, f"release{suffix}")
            context.close()
        chromium.close()


def sign_in(page: Page, name: str, password: str) -> None:
    page.goto("/login/")
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_selector("h1:has-text('What runs where')")


def visit(page: Page, pattern: str) -> None:
    """Follow the first link of the page whose address fits."""
    links = page.locator("a[href]").evaluate_all("(all) => all.map((one) => one.pathname)")
    found = next((link for link in links if re.search(pattern, link)), None)
    if found is None:
        raise SystemExit(f"{page.url} leads to nothing like {pattern}: push something first.")
    page.goto(found)


def take(page: Page, name: str) -> None:
    path = IMAGES / f"{name}.png"
    page.wait_for_load_state("load")
    page.screenshot(path=path, animations="disabled")
    if path.stat().st_size > MAX_BYTES:
        raise SystemExit(f"{path} has {path.stat().st_size} bytes, more than {MAX_BYTES}.")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        raise SystemExit(__doc__)
    main(*sys.argv[1:])
