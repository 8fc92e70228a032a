"""axe-core, whose script comes with axe-playwright-python, run in an open page."""

from __future__ import annotations

from collections.abc import Collection
from functools import cache
from importlib.resources import files
from typing import Any

from playwright.sync_api import Page

TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
# Violations alone, on a page whose moving parts have come to rest.
RUN = """
([only, rules]) => {
  for (const one of document.getAnimations()) one.cancel();
  return axe.run(document, {runOnly: only, rules, resultTypes: ["violations"]})
    .then((found) => found.violations.map((one) =>
      [one.id, one.help, one.nodes.slice(0, 4).map((node) => node.html.slice(0, 160))]));
}
"""


def violations(page: Page, *rules: str, but: Collection[str] = ()) -> list[Any]:
    """What axe finds against WCAG 2.2 A and AA: rule, its words, and where.

    ``rules`` are looked at alone, if there are any, and those of ``but`` never. The script comes
    through the debugger: the page's own policy would refuse it.
    """
    if not page.evaluate("'axe' in window"):
        page.evaluate(_source())
    only = {"type": "rule", "values": rules} if rules else {"type": "tag", "values": TAGS}
    found: list[Any] = page.evaluate(RUN, [only, {rule: {"enabled": False} for rule in but}])
    return found


@cache
def _source() -> str:
    return (files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8")
