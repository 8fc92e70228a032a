"""What takes a while: a moving line with a clock on a terminal, a plain one elsewhere."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Column

Tell = Callable[[str], None]  # takes a detail to show beside the title


@contextlib.contextmanager
def doing(console: Console, title: str) -> Iterator[Tell]:
    """Shows ``title`` while the block runs, and that it is done when it ends well."""
    if not console.is_terminal:
        console.print(f"  * {title}")
    began = time.monotonic()
    with moving(console, title) as tell:
        yield tell
    if console.is_terminal:
        took = time.monotonic() - began
        console.print(f"  [green]+[/] {escape(title)}  [dim]{took:.1f} s[/]")


@contextlib.contextmanager
def moving(console: Console, title: str) -> Iterator[Tell]:
    """One line that is gone at the end, however long its details are; none without a terminal."""
    whole_line = Column(no_wrap=True, overflow="ellipsis", ratio=1)
    with Progress(
        SpinnerColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}  [dim]{task.fields[detail]}[/]", table_column=whole_line),
        console=console,
        transient=True,
        expand=True,
        disable=not console.is_terminal,
    ) as progress:
        task = progress.add_task(escape(title), detail="")
        yield lambda detail: progress.update(task, detail=escape(detail))
