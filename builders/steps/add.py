"""ADD: COPY, and local archives are unpacked, URLs and repositories fetched."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import BinaryIO, cast

from builders.dockerfile.instructions import Add
from builders.errors import DockerfileError
from builders.remote.places import GitPlace, NoPlace, parse_place
from builders.remote.web import name_of
from builders.steps.archives import compression_of, unpacked
from builders.steps.bench import Bench, Done
from builders.steps.copy import (
    CONTEXT,
    Order,
    Site,
    expand_order,
    find_all,
    finish,
    place,
    site_of,
    warn_of_one_place,
)
from builders.steps.fetched import WHOLE, Remotes, WebSource
from builders.steps.sources import ContextSource, Found, Source
from builders.steps.state import StageState
from runtime.snapshots import RootFs

_WEB = re.compile(r"^https?://", re.IGNORECASE)
_CHECKSUM = re.compile(r"sha256:[0-9a-f]{64}")
_COMMIT = re.compile(r"[0-9a-f]{7,64}")


@dataclass(frozen=True, slots=True)
class Kinds:
    """ADD's sources as they are written, by what they are. ``every`` has them in their order."""

    every: tuple[str | GitPlace, ...]
    urls: frozenset[str]

    @property
    def places(self) -> list[GitPlace]:
        return [source for source in self.every if isinstance(source, GitPlace)]

    @property
    def local(self) -> list[str]:
        return [s for s in self.every if isinstance(s, str) and s not in self.urls]


def add(step: Add, state: StageState, bench: Bench) -> Done:
    order = expand_order(step, state, bench)
    kinds = _kinds(step, order)
    checksum = _checksum(step, bench.expander(step, state).word(step.checksum), order, kinds)
    site = site_of(step, order, state, bench)
    source = ContextSource(bench.tree)
    found = {
        text: find_all(step, replace(order, sources=(text,)), source, CONTEXT, bench)
        for text in kinds.local
    }
    with Remotes(step, bench) as remotes:
        commits = {each: remotes.commit(each, checksum) for each in kinds.places}
        site = site._replace(order=replace(site.order, sources=()))
        adding = _Adding(step, site, bench, kinds, remotes, checksum, source, found, commits)
        content = (step.unpack, [adding.identity(each) for each in kinds.every])
        return finish("add", site, state, content, adding.write)


@dataclass(frozen=True)
class _Adding:
    """One ADD whose sources are known: what they are, and how they get to their place."""

    step: Add
    site: Site
    bench: Bench
    kinds: Kinds
    remotes: Remotes
    checksum: str
    context: ContextSource
    found: Mapping[str, Sequence[Found]]
    commits: Mapping[GitPlace, str]

    def identity(self, each: str | GitPlace) -> object:
        """What of a source shapes the layer."""
        if isinstance(each, GitPlace):  # a commit is the same wherever it comes from
            return self.commits[each], each.subdir, self.step.keep_git_dir and each.url
        if each in self.kinds.urls:
            # A checksum is as good as the content: under it nothing is fetched again.
            return each, self.checksum or self.remotes.file(each).digest
        matcher = self.site.order.matcher
        return [(item.path, self.context.digest(item, matcher)) for item in self.found[each]]

    def write(self, rootfs: RootFs, key: str) -> None:
        order = self.site.order
        plain = replace(order, texts=())
        files = sum(map(len, self.found.values())) + len(self.kinds.urls) + len(order.texts)
        warn_of_one_place(self.bench, rootfs, order, files)
        for each in self.kinds.every:
            if isinstance(each, GitPlace):
                commit, kept = self.commits[each], self.step.keep_git_dir
                for part in self.remotes.tree(each, commit, keep_git_dir=kept):
                    self._put(rootfs, key, plain, part, [WHOLE])
            elif each in self.kinds.urls:
                web = WebSource(self.remotes.file(each, self.checksum))
                name = Found(name_of(each), "/", folder=False)
                self._put_files(rootfs, key, plain, web, [name], unpack=bool(self.step.unpack))
            else:
                unpack = self.step.unpack is not False
                found = self.found[each]
                self._put_files(rootfs, key, plain, self.context, found, unpack=unpack)
        if order.texts:
            self._put(rootfs, key, order, self.context, [])

    def _put_files(
        self,
        rootfs: RootFs,
        key: str,
        order: Order,
        source: Source,
        found: Sequence[Found],
        *,
        unpack: bool,
    ) -> None:
        """Place what is found; archives among it as what they hold, where ``unpack`` says so."""
        for item in found:
            if item.folder or not unpack:
                self._put(rootfs, key, order, source, [item])
                continue
            with _spooled(source, item) as spool:
                compression = compression_of(spool)
                if compression is None:
                    self._put(rootfs, key, order, source, [item])
                    continue
                place = self.step.at.place
                with unpacked(
                    spool, compression, shown=item.path, place=place, bench=self.bench
                ) as root:
                    whole = replace(order, exclude=(), parents=False, as_is=True)
                    self._put(rootfs, key, whole, root, [Found(item.path, "/", folder=True)])

    def _put(
        self, rootfs: RootFs, key: str, order: Order, source: Source, found: Sequence[Found]
    ) -> None:
        bench = self.site.bench
        place(self.step, order, rootfs, bench, key, source, found)


def _kinds(step: Add, order: Order) -> Kinds:
    every: list[str | GitPlace] = []
    urls: set[str] = set()
    for text in order.sources:
        try:
            found = parse_place(text)
        except NoPlace as error:
            raise DockerfileError(
                f"ADD {_without_password(text)} is not possible: {error}.",
                place=step.at.place,
                hint=error.hint,
                code="dockerfile.add-remote",
            ) from None
        every.append(found or text)
        if found is None and _WEB.match(text):
            urls.add(text)
    return Kinds(tuple(every), frozenset(urls))


def _checksum(step: Add, text: str, order: Order, kinds: Kinds) -> str:
    """What the one URL or commit must be; empty without --checksum."""
    message = ""
    if text and len(order.sources) != 1:
        message = "--checksum is for one URL or repository, and ADD has several sources."
    elif text and kinds.places and not _COMMIT.fullmatch(text):
        message = (
            f"--checksum of a repository is a commit id, at least 7 of 0-9a-f, not {text!r:.100}."
        )
    elif text and not kinds.places and not kinds.urls:
        message = "--checksum is for one URL or repository, and ADD has something else."
    elif text and kinds.urls and not _CHECKSUM.fullmatch(text):
        message = f"--checksum is sha256: and 64 digits of 0-9a-f, not {text[:100]!r}."
    elif step.keep_git_dir and not kinds.places:
        message = "--keep-git-dir is for repositories, and ADD has none."
    elif any(not name_of(url) for url in kinds.urls) and order.dest.endswith("/"):
        message = "The URL ends without a file name, and the destination has none either."
    if message:
        raise DockerfileError(message, place=step.at.place, code="dockerfile.value")
    return text


def is_elsewhere(text: str) -> bool:
    """Whether a source is fetched: a file of the web, a repository, or what is no place at all."""
    try:
        return parse_place(text) is not None or _WEB.match(text) is not None
    except NoPlace:
        return True


@contextmanager
def _spooled(source: Source, found: Found) -> Iterator[BinaryIO]:
    """The file's bytes on disk, from their beginning."""
    with (
        tempfile.TemporaryFile(prefix="gantry-add-") as spool,
        closing(source.items(found, None)) as items,
    ):
        for item in items:
            for chunk in item.chunks:
                spool.write(chunk)
        spool.seek(0)
        yield cast(BinaryIO, spool)


def _without_password(text: str) -> str:
    return re.sub(r"//[^/@]*@", "//...@", text)
