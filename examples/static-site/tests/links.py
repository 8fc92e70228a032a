"""Follows every link of a site, and fails for one that leads nowhere."""

import sys
from html.parser import HTMLParser
from urllib.error import HTTPError
from urllib.parse import urljoin
from urllib.request import urlopen


class Links(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.page = page
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [
            urljoin(self.page, value) for name, value in attrs if name == "href" and value
        ]


def main(start: str) -> int:
    seen, todo, dead = set(), [start], []
    while todo:
        page = todo.pop()
        if page in seen or not page.startswith(start):
            continue
        seen.add(page)
        try:
            with urlopen(page, timeout=5) as answer:
                text = answer.read().decode()
        except HTTPError as error:
            dead.append(f"{page}: {error.code}")
            continue
        links = Links(page)
        links.feed(text)
        todo += links.found
    print(f"{len(seen)} pages and files", *dead, sep="\n")
    return 1 if dead else 0


sys.exit(main(sys.argv[1]))
