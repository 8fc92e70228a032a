"""Everything asked of Git repositories: hosted ones, mirrors, and what is in them."""

from __future__ import annotations

import fcntl
import logging
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.request import proxy_bypass

from django.conf import settings

from ciserver.lib.problems import Refused
from ciserver.projects import origins
from ciserver.projects.models import Project
from ciserver.repositories.command import environment, run
from ciserver.repositories.credentials import shown
from ciserver.repositories.errors import (
    FetchFailed,
    FileTooBig,
    GitFailed,
    RepositoryError,
    UnknownCommit,
    UnknownFile,
)
from ciserver.repositories.leftovers import remove_halves
from ciserver.repositories.names import check_path, check_ref, check_sha, is_ref, is_sha

log = logging.getLogger(__name__)
FETCH_TIMEOUT = 600.0  # seconds
LS_REMOTE_TIMEOUT = 60.0  # seconds
LS_REMOTE_MEMORY = 256 * 1024**2  # bytes: of a million refs; a hostile forge lists without end
BROKEN_OFF = 2 * 3600.0  # seconds: no push may last half as long (``http.backend.TOTAL``)
# Where forges keep the commits of pull requests: GitHub, Gitea, Forgejo; GitLab; Bitbucket.
PULL_REF = re.compile(r"refs/(?:pull|merge-requests|pull-requests)/([1-9]\d{0,8})/(?:head|from)")
LOOKED_AT = (
    "refs/heads/*", "refs/tags/*",
    "refs/pull/*/head", "refs/merge-requests/*/head", "refs/pull-requests/*/from",
)  # fmt: skip
PULLS = 1000  # that are remembered of a repository: those of the greatest numbers
PROTOCOLS = "https:http"
PROXIES = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
CREDENTIALS = re.compile(r"(\w://)[^/@\s]*@")
REGULAR = {"100644", "100755"}
# The seconds that an image's layers can hold (ustar, eleven octal digits: the year 2242). Git
# itself takes any number, even one that no calendar has.
LAST_TIME = 8**11 - 1
# How git tells that an object is not there; anything else is trouble of another kind.
MISSING = ("bad object", "bad revision", "not a tree object", "not a valid object name")
# Trying again is of no use when the other side's answer was clear.
FINAL = (
    "couldn't find remote ref",
    "authentication failed",
    "could not read username",
    "could not read password",
    "not found",
    "returned error: 403",
    "transport '",
    "fsck error",
    "redirect",
)
# What ssh says, and what is to be done about it.
PRIVATE = {
    "permission denied (": "the host does not know Gantry's key. Give it the public key that the "
    "project's page “Repository” shows.",
    "host key verification failed": "the host shows another key than the one that was pinned. If "
    "it was replaced on purpose, forget the pinned one on the project's page “Repository”.",
    "repository not found": "the host has no such repository, or Gantry's key may not read it.",
}


@dataclass(frozen=True, slots=True)
class CommitInfo:
    """Who wrote a commit, when it was committed, and the first line of its message.

    ``committed_at`` lies between 1970 and 2242, whatever the commit says.
    """

    sha: str
    subject: str
    author: str
    committed_at: datetime
    message: str = ""


def git_dir(project: Project) -> Path:
    """Where the repository of ``project`` is, or will be: hosted here, or our mirror of it."""
    config = settings.GANTRY
    folder: Path = config.repositories if project.hosted else config.mirrors
    return folder / f"{project.pk}.git"


def create_hosted(project: Project) -> Path:
    """The hosted repository of ``project``, made if it is not there yet. May be called twice."""
    target = git_dir(project)
    if not target.exists():
        with _made_beside(target) as fresh:
            branch = check_ref(f"refs/heads/{project.default_branch}").removeprefix("refs/heads/")
            head = f"--initial-branch={branch}"
            run("init", "--bare", "--template=", head, str(fresh), owner=fresh)
            spool = fresh / "spool"
            spool.mkdir(mode=0o700)
            _give(spool, to=fresh)
    return target


def tidy_hosted() -> None:
    """A chore: what pushes left whose web process was killed. Git tidies up after others."""
    for project in Project.objects.filter(clone_url=""):
        if gone := remove_halves(git_dir(project), older=BROKEN_OFF):
            log.info("%s: %s halves of broken pushes removed", project, gone)


def set_default_branch(project: Project) -> None:
    """What a clone of the hosted repository checks out, as the project's row has it."""
    place = git_dir(project)
    if project.hosted and place.exists():
        head = check_ref(f"refs/heads/{project.default_branch}")
        run("symbolic-ref", "HEAD", head, git_dir=place)


# Given to Git with every push rather than written into each repository's own configuration:
# what is changed here holds for old repositories too, and none of them can say otherwise.
HOSTED = {
    "core.logAllRefUpdates": "true",
    "gc.auto": "0",
    "receive.advertisePushOptions": "true",
    "receive.autogc": "false",
    "receive.fsckObjects": "true",
}


def fetch(project: Project, ref: str) -> str:
    """Bring ``ref`` of the outside repository into the mirror; the sha it is at now.

    Raises FetchFailed with a sentence for the delivery's page.
    """
    check_ref(ref)
    mirror = git_dir(project)
    with _locked(mirror.with_suffix(".lock")), _failing(project, ref):
        if not mirror.exists():
            with _made_beside(mirror) as fresh:
                run("init", "--bare", "--template=", str(fresh), owner=fresh)
        with _reaching(project, mirror) as env, _tidied(mirror):
            run(
                "fetch",
                "--quiet",
                "--no-tags",
                "--no-write-fetch-head",
                "--no-recurse-submodules",
                "--no-auto-maintenance",
                "--end-of-options",
                project.clone_url,
                f"+{ref}:{ref}",
                git_dir=mirror,
                env=env,
                timeout=FETCH_TIMEOUT,
                largest=settings.GANTRY.fetch_bytes,
            )
        return heads(mirror, ref)[ref]


def ls_remote(project: Project) -> dict[str, str]:
    """Ref -> sha of branches, tags and pull requests as the outside repository has them now.

    Names that could not be built are left out; of pull requests, all but the newest. Raises
    FetchFailed.
    """
    config = settings.GANTRY
    with (
        _failing(project, "The list of refs"),
        _reaching(project, config.mirrors) as env,
    ):
        output = run(
            "ls-remote", "--end-of-options", project.clone_url, *LOOKED_AT,
            owner=config.mirrors, env=env, timeout=LS_REMOTE_TIMEOUT, memory=LS_REMOTE_MEMORY,
        )  # fmt: skip
    lines = output.decode(errors="replace").removesuffix("\n").split("\n")
    found = {ref: sha for sha, _, ref in (line.partition("\t") for line in lines)}
    usable = {ref: sha for ref, sha in found.items() if is_sha(sha) and is_ref(ref)}
    pulls = sorted(ref for ref in usable if pull_number(ref))
    pulls.sort(key=pull_number)
    return {ref: usable[ref] for ref in usable.keys() - set(pulls[:-PULLS])}


def pull_number(ref: str) -> int:
    """Of the pull request whose commits a forge keeps at ``ref``; 0 for any other ref."""
    found = PULL_REF.fullmatch(ref)
    return int(found[1]) if found else 0


def commit_info(git_dir: Path, sha: str) -> CommitInfo:
    """Raises UnknownCommit when the repository has no commit ``sha``, GitFailed for the rest."""
    check_sha(sha)
    try:
        output = run(
            "rev-list",
            "--max-count=1",
            "--no-commit-header",
            "--format=%H%x00%an%x00%ct%x00%s%x00%B",
            "--end-of-options",
            sha,
            git_dir=git_dir,
        )
    except GitFailed as error:
        raise _unless_unknown(error, sha) from error
    # A tree or a blob prints nothing, a tag prints the commit that it leads to.
    found, *fields = output.decode(errors="replace").rstrip("\n").split("\0", 4)
    if found != sha:
        raise UnknownCommit(f"{sha[:12]} is in the repository, but it is not a commit.")
    author, seconds, subject, message = fields
    return CommitInfo(sha, subject, author, _time(seconds), message)


def peel(git_dir: Path, sha: str) -> str:
    """The commit that a tag leads to; a commit leads to itself. Raises UnknownCommit, GitFailed."""
    check_sha(sha)
    try:
        output = run(
            "rev-parse", "--verify", "--end-of-options", f"{sha}^{{commit}}", git_dir=git_dir
        )
    except GitFailed as error:
        if "needed a single revision" in str(error).lower():
            raise UnknownCommit(f"{sha[:12]} leads to no commit of the repository.") from error
        raise _unless_unknown(error, sha) from error
    return output.decode().strip().rsplit("\n", 1)[-1]


def read_file(git_dir: Path, sha: str, path: str, max_bytes: int) -> bytes:
    """The bytes of the regular file ``path`` at ``sha``; a symbolic link is never followed.

    Raises UnknownFile, FileTooBig, or BadName for a path that leaves the repository.
    """
    check_sha(sha)
    check_path(path)
    try:
        listing = run(
            "ls-tree", "-z", "-l", "--full-tree", "--end-of-options", sha, "--", path,
            git_dir=git_dir,
        )  # fmt: skip
    except GitFailed as error:
        raise _unless_unknown(error, sha) from error
    if not listing:
        raise UnknownFile(f"There is no file {path!r} at {sha[:12]}.")
    mode, _, oid, size = listing.split(b"\t", 1)[0].decode().split()
    if mode not in REGULAR:
        raise UnknownFile(f"{path!r} is not a regular file at {sha[:12]}.")
    if int(size) > max_bytes:
        raise FileTooBig(f"{path!r} has {size} bytes; at most {max_bytes} are read.")
    return run("cat-file", "blob", oid, git_dir=git_dir)


def heads(git_dir: Path, *refs: str) -> dict[str, str]:
    """Ref -> sha of all branches and tags, or of those among ``refs`` that exist."""
    asked = [check_ref(ref) for ref in refs] or ["refs/heads", "refs/tags"]
    output = run("for-each-ref", "--format=%(objectname) %(refname)", "--", *asked, git_dir=git_dir)
    lines = output.decode(errors="replace").removesuffix("\n").split("\n")
    pairs = (line.split(" ", 1) for line in lines if line)
    found = {ref: sha for sha, ref in pairs}
    # for-each-ref takes prefixes: refs/heads/a would list refs/heads/a/b too.
    return {ref: found[ref] for ref in refs if ref in found} if refs else found


def _unless_unknown(error: GitFailed, sha: str) -> RepositoryError:
    if any(words in str(error).lower() for words in MISSING):
        return UnknownCommit(f"The repository has no commit {sha[:12]}.")
    return error


def _time(seconds: str) -> datetime:
    """Of a commit whose committer line cannot be read, git prints no time at all."""
    told = int(seconds) if seconds.isdecimal() else 0
    return datetime.fromtimestamp(min(told, LAST_TIME), UTC)


@contextmanager
def _reaching(project: Project, to: Path) -> Iterator[dict[str, str]]:
    """The environment of a Git that fetches for ``project``, as whoever owns ``to``: it reaches
    the host of the project's address as we looked it up, and shows what that asks for.

    Raises FetchFailed for a host that must not be asked or is not known.
    """
    more = {name: os.environ[name] for name in PROXIES if name in os.environ}
    if settings.GANTRY.extra_ca:
        more |= {"GIT_SSL_CAINFO": str(settings.GANTRY.extra_ca)}
        more |= {"GIT_SSL_CAPATH": "/etc/ssl/certs"}
    try:
        host, port = origins.check(project.clone_url, ssh=True)
        addresses = origins.resolve(host, port)
    except Refused as refusal:
        raise FetchFailed(f"Nothing was fetched. {refusal}", temporary=False) from None
    except OSError as error:
        if not _proxied(project.clone_url, host):
            raise FetchFailed(f"{host} is not known: {error.strerror}.", temporary=True) from None
        pinned: dict[str, str] = {}  # the proxy knows names that we do not
        addresses = [""]
    else:
        # A name server may answer otherwise when git asks; git therefore does not ask.
        known = ",".join(f"[{address}]" if ":" in address else address for address in addresses)
        pinned = {} if ":" in host else {"http.curloptResolve": f"{host}:{port}:{known}"}
    with shown(project, addresses[0], to=to) as access:
        protocols = "ssh" if project.clone_url.startswith("ssh:") else PROTOCOLS
        configured = environment(protocols=protocols, settings=pinned | dict(access.settings))
        yield configured | more | dict(access.env)


@contextmanager
def _tidied(mirror: Path) -> Iterator[None]:
    """Half a pack stays of a fetch that is killed, or too large; of the one before, too."""
    remove_halves(mirror)
    try:
        yield
    except GitFailed:
        remove_halves(mirror)
        raise


@contextmanager
def _failing(project: Project, what: str) -> Iterator[None]:
    try:
        yield
    except GitFailed as error:
        raise _fetch_failed(project, what, str(error)) from error


def _proxied(url: str, host: str) -> bool:
    """Whether curl asks a proxy for ``url``. It knows HTTP_PROXY in small letters alone."""
    names = ("https_proxy", "HTTPS_PROXY") if url.startswith("https:") else ("http_proxy",)
    return any(os.environ.get(name) for name in names) and not proxy_bypass(host)


def _fetch_failed(project: Project, ref: str, said: str) -> FetchFailed:
    lowered = said.lower()
    if "file too large" in lowered:
        most = settings.GANTRY.fetch_bytes // 1024**2
        return FetchFailed(
            f"{ref} could not be fetched: its history has more than {most} MiB. Whoever runs "
            "Gantry may allow more by GANTRY_FETCH_MAX_MIB.",
            temporary=False,
        )
    for words, sentence in PRIVATE.items():
        if words in lowered:
            return FetchFailed(f"{ref} could not be fetched: {sentence}", temporary=False)
    temporary = not any(word in lowered for word in FINAL)
    last = CREDENTIALS.sub(r"\1", said.strip().splitlines()[-1])
    address = CREDENTIALS.sub(r"\1", project.clone_url)
    return FetchFailed(f"{ref} could not be fetched from {address}: {last}", temporary=temporary)


@contextmanager
def _made_beside(target: Path) -> Iterator[Path]:
    """A fresh directory that takes the name ``target`` at the end, if nobody was faster."""
    fresh = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        # Of a mirror, what root fetches belongs to the group of its folder: others read it.
        fresh.chmod(0o750 | target.parent.stat().st_mode & stat.S_ISGID)
        _give(fresh, to=target.parent)
        yield fresh
        try:
            fresh.rename(target)
        except OSError:
            if not target.exists():
                raise
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _give(path: Path, *, to: Path) -> None:
    status = to.stat()
    if os.geteuid() == 0:
        os.chown(path, status.st_uid, status.st_gid)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
