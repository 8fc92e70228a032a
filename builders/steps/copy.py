"""COPY: files of the context, of another stage or of an image, as BuildKit places them."""

from __future__ import annotations

import posixpath
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from typing import NamedTuple

from e2b_dockerfile_utils import PatternMatcher

from builders.cache import step_key
from builders.context import Kind
from builders.context.tree import has_wildcard
from builders.dockerfile.instructions import Copy
from builders.errors import BuildError, ContextError
from builders.images.layerstore import Layer
from builders.steps.accounts import find_owner
from builders.steps.bench import Bench, Done, layer_of
from builders.steps.modes import ModeChange
from builders.steps.placing import Placer
from builders.steps.sources import ContextSource, Found, Item, RootSource, Source, nearest_names
from builders.steps.state import StageState, chain_id
from runtime.paths import exists_in_root, open_root, resolve_in_root
from runtime.sandbox import Stream
from runtime.snapshots import RootFs

CONTEXT = "the build context"


@dataclass(frozen=True)
class Order:
    """A COPY with everything expanded. ``texts`` are heredocs: (name, content)."""

    sources: tuple[str, ...]
    dest: str
    texts: tuple[tuple[str, str], ...]
    chown: str
    chmod: str
    exclude: tuple[str, ...]
    parents: bool
    as_is: bool = False  # what an archive holds keeps its owners and modes, as in BuildKit

    @property
    def matcher(self) -> PatternMatcher | None:
        return PatternMatcher(list(self.exclude)) if self.exclude else None

    def identity(self) -> list[object]:
        return [
            self.sources, self.dest, self.texts, self.chown, self.chmod, self.exclude, self.parents
        ]  # fmt: skip


def copy(step: Copy, state: StageState, bench: Bench) -> Done:
    order = expand_order(step, state, bench)
    if step.source is not None:
        return _copy_from_layers(step, order, state, bench)
    source = ContextSource(bench.tree)
    found = find_all(step, order, source, CONTEXT, bench)
    content = [(item.path, source.digest(item, order.matcher)) for item in found]
    site = site_of(step, order, state, bench)

    def write(rootfs: RootFs, key: str) -> None:
        warn_of_one_place(bench, rootfs, site.order, len(found) + len(order.texts))
        place(step, site.order, rootfs, site.bench, key, source, found)

    return finish("copy", site, state, content, write)


class Site(NamedTuple):
    """Where a COPY writes: upon ``layers``, with ``order`` and ``bench`` as they hold there."""

    order: Order
    layers: tuple[Layer, ...]
    bench: Bench


def site_of(step: Copy, order: Order, state: StageState, bench: Bench) -> Site:
    """The stage so far; for --link nothing at all, so that the layer does not depend on it.

    What a link's layer holds, its times included, is then the same upon any image. Names of
    --chown are the one thing that is looked up in the stage.
    """
    if not step.link:
        return Site(order, state.layers, bench)
    owner = order.chown
    if not is_numeric(owner):
        with opened_layers(state.layers, bench) as root, _placed(step):
            owner = ":".join(map(str, find_owner(root.fd, owner)))
    return Site(replace(order, chown=owner), (), bench.for_base(None))


def is_numeric(owner: str) -> bool:
    """Whether --chown means the same in any image: numbers, or nothing."""
    return not owner or re.fullmatch(r"\d+(:\d+)?", owner) is not None


def finish(
    kind: str, site: Site, state: StageState, content: object, write: Callable[[RootFs, str], None]
) -> Done:
    key = step_key(kind, chain_id(site.layers), site.order.identity(), content)
    made = layer_of(site.bench, site.layers, key, lambda rootfs: write(rootfs, key))
    return Done(state.with_layer(made.layer), made.layer, made.cached)


@contextmanager
def _placed(step: Copy) -> Iterator[None]:
    try:
        yield
    except BuildError as error:
        error.place = error.place or step.at.place
        raise


def expand_order(step: Copy, state: StageState, bench: Bench) -> Order:
    expander = bench.expander(step, state)
    dest = expander.word(step.dest)
    sources = tuple(expander.word(word) for word in step.sources)
    if "" in sources and step.source is None:
        _notice(bench, f"a source of {step.name} is empty, which means the whole build context")
    return Order(
        sources=sources,
        dest=_destination(dest, state.workdir),
        texts=tuple(
            (doc.name, expander.heredoc(doc.content) if doc.expand else doc.content)
            for doc in step.heredocs
        ),
        chown=expander.word(step.chown),
        chmod=expander.word(step.chmod),
        exclude=tuple(expander.word(pattern) for pattern in step.exclude),
        parents=step.parents,
    )


def _destination(dest: str, workdir: str) -> str:
    """Absolute; a final slash says "a folder", and so do ``.``, ``..`` and nothing at all."""
    folder = dest.endswith("/") or posixpath.basename(dest) in {"", ".", ".."}
    path = "/" + posixpath.normpath(posixpath.join(workdir, dest)).lstrip("/")
    return path + "/" if folder and path != "/" else path


def find_all(step: Copy, order: Order, source: Source, where: str, bench: Bench) -> list[Found]:
    """Every source, in order. Raises ContextError naming the missing one and the nearest names.

    A wildcard may match nothing, as in ``COPY package.json yarn.lock* ./``: then it copies
    nothing. The folder that it looks in must be there, as in BuildKit.
    """
    found: list[Found] = []
    for pattern in order.sources:
        matches = source.find(pattern)
        if not matches and has_wildcard(pattern) and source.find(_before_wildcard(pattern)):
            _notice(bench, f"nothing in {where} matches {pattern}")
        elif not matches:
            raise ContextError(
                f"{step.name} finds no {pattern} in {where}.",
                place=step.at.place,
                hint=_missing(source, pattern),
                code="context.missing",
            )
        found.extend(matches)
    return found


def _before_wildcard(pattern: str) -> str:
    parts = pattern.split("/")
    return "/".join(parts[: next(n for n, part in enumerate(parts) if has_wildcard(part))])


def _notice(bench: Bench, words: str) -> None:
    bench.output(Stream.STDERR, f"Notice: {words}.\n".encode("utf-8", "replace"))


def _missing(source: Source, pattern: str) -> str:
    if isinstance(source, ContextSource) and (link := source.broken_link(pattern)):
        return link
    if near := nearest_names(source, pattern):
        return near
    if not isinstance(source, ContextSource):
        return "Is it made in that stage or image, and under this very path?"
    if pattern.startswith(".."):
        return "Nothing above the build context can be copied: build with a folder that holds it."
    return "Is it ignored by .dockerignore, or not committed?"


def _copy_from_layers(step: Copy, order: Order, state: StageState, bench: Bench) -> Done:
    origin = step.source or ""
    layers = bench.origin(origin, step)
    site = site_of(step, order, state, bench)

    def write(rootfs: RootFs, key: str) -> None:
        with opened_layers(layers, bench) as source:
            found = find_all(step, order, source, origin, bench)
            warn_of_one_place(bench, rootfs, site.order, len(found))
            place(step, site.order, rootfs, site.bench, key, source, found)

    return finish("copy-from", site, state, chain_id(tuple(layers)), write)


@contextmanager
def opened_layers(layers: Sequence[Layer], bench: Bench) -> Iterator[RootSource]:
    with ExitStack() as stack:
        mounted = stack.enter_context(bench.store.rootfs(layers, ids=bench.ids, bare=True))
        fd = stack.enter_context(open_root(mounted.path))
        yield RootSource(fd, base=bench.ids.base)


def warn_of_one_place(bench: Bench, rootfs: RootFs, order: Order, count: int) -> None:
    """Several sources for a place that is no folder follow one another there, as in BuildKit."""
    if count < 2 or order.dest.endswith("/") or order.parents:
        return
    with open_root(rootfs.path) as root:
        status = exists_in_root(root, order.dest)
    if status is None or not stat.S_ISDIR(status.st_mode):
        dest = order.dest
        _notice(bench, f"{count} sources go to {dest} itself, and the last one stays there: "
                f"for a folder write {dest}/")  # fmt: skip


def place(
    step: Copy,
    order: Order,
    rootfs: RootFs,
    bench: Bench,
    key: str,
    source: Source,
    found: Sequence[Found],
) -> None:
    """Write everything found, and the heredocs, below ``rootfs``. Errors get the step's place."""
    with open_root(rootfs.path) as root, _placed(step):
        placer = Placer(
            root,
            bench.ids,
            bench.layer_time(key),
            find_owner(root, order.chown) if order.chown else None,
            ModeChange(order.chmod, step.at) if order.chmod else None,
            as_is=order.as_is,
            check=bench.check_cancelled,
        )
        # The last name too is followed: COPY to a link writes what the link names.
        slash = "/" if order.dest.endswith("/") else ""
        order = replace(order, dest=resolve_in_root(root, order.dest).rstrip("/") + slash)
        for item in found:
            bench.check_cancelled()
            with closing(source.items(item, order.matcher if item.folder else None)) as items:
                _place_one(placer, order, source, item, items)
        for name, text in order.texts:
            _place_text(placer, order, name, text)


def _place_one(
    placer: Placer, order: Order, source: Source, found: Found, items: Iterator[Item]
) -> None:
    dest = order.dest
    if order.parents:
        dest = _with_parents(placer, dest, source, found)
    if found.folder:
        placer.make_folders(dest)
        placer.place_folder(dest, items)
    else:
        target = file_target(placer, dest, found.name, inside=order.parents)
        placer.place_file(target, items)


def _with_parents(placer: Placer, dest: str, source: Source, found: Found) -> str:
    """``--parents``: the source's folders, from its ``/./`` on, are kept below the destination.

    They are made as they are in the source; the folder to copy to comes back.
    """
    parts = found.path.split("/") if found.folder else found.path.split("/")[:-1]
    done = dest.rstrip("/")
    for depth in range(found.pivot, len(parts)):
        done = f"{done}/{parts[depth]}"
        if not placer.is_folder(done):
            placer.make_folders(posixpath.dirname(done) or "/")
            placer.place_parent(done, source.folder("/".join(parts[: depth + 1])))
    return done + "/"


def _place_text(placer: Placer, order: Order, name: str, text: str) -> None:
    target = file_target(placer, order.dest, name)
    body = text.encode("utf-8", "surrogateescape")
    placer.place_file(target, [Item("", Kind.FILE, 0o644, chunks=[body])])


def file_target(placer: Placer, dest: str, name: str, *, inside: bool = False) -> str:
    """Where one file goes: into ``dest`` when that is or must be a folder, else to ``dest``."""
    if inside or dest.endswith("/") or placer.is_folder(dest):
        placer.make_folders(dest)
        return posixpath.join(dest, name)
    placer.make_folders(posixpath.dirname(dest))
    return dest
