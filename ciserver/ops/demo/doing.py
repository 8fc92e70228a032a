"""What takes a while: a moving line on a terminal, a plain one elsewhere."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.markup import escape


@contextlib.contextmanager
def doing(console: Console, title: str) -> Iterator[Callable[[str], None]]:
    """Yields a function that takes details to show beside the title."""
    if not console.is_terminal:
        console.print(f"  * {title}")
        yield lambda _: None
        return
    with console.status(title) as status:
        yield lambda detail: status.update(f"{title}  [dim]{escape(detail)}[/]")
    console.print(f"  [green]+[/] {title}")
