"""Base images: what is asked of mmdebstrap, and what no image may keep of this machine.

That a whole base is made, and runs, is shown by the end-to-end test.
"""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from builders.bases import (
    BaseFailed,
    apt,
    archive_key,
    bootstrap_command,
    make_base,
    recipe_names,
    tidy,
)
from builders.bases.apt import Release, Target
from builders.bases.recipes import Recipe, find_recipe
from builders.errors import ImageNotFound
from builders.images.config import ImageConfig
from builders.images.reference import Reference
from builders.images.store import Store
from tests.builders.images.test_store import a_layer
from tests.builders.images.trees import digest_of

BOOKWORM = Release("debian", "bookworm")
NOBLE = Release("ubuntu", "noble")

DUMP = """\
APT "";
APT::Update::Post-Invoke:: "/usr/bin/something";
Acquire::http::Proxy "http://user:pw@proxy:3128";
Acquire::https::CaInfo "/etc/ssl/certs/corp.pem";
Acquire::Check-Valid-Until "false";
Acquire::Retries "3";
Acquire::IndexTargets::deb::Packages::Optional "0";
Acquire::Languages "en";
DPkg::Post-Invoke:: "rm -rf /";
Binary::apt::DPkg::Lock::Timeout "120";
"""


def recipe(name: str, release: Release = BOOKWORM) -> Recipe:
    return find_recipe(Reference.parse(name), release)


@pytest.mark.parametrize("name", recipe_names())
def test_every_name_that_is_offered_has_a_recipe(name: str) -> None:
    assert recipe(name).keyring.startswith("/usr/share/keyrings/")


def test_python_comes_from_this_machines_own_release() -> None:
    assert recipe("gantry/python:3", BOOKWORM).suite == "bookworm"
    assert recipe("gantry/python:3", Release("debian", "trixie")).suite == "trixie"
    assert recipe("gantry/python:3", NOBLE).suite == "noble"
    assert recipe("gantry/python:3", Release("arch", "")).suite == "bookworm"


def test_an_unknown_name_is_answered_with_the_nearest_ones() -> None:
    with pytest.raises(ImageNotFound, match="no recipe") as caught:
        recipe("debian:bookworm")
    assert "debian:bookworm-slim" in caught.value.hint


def test_the_machines_mirrors_are_used_where_they_can_serve_the_suite() -> None:
    targets = [
        Target("https://corp/debian", "bookworm", "contrib"),
        Target("https://corp/debian", "bookworm", "main"),
        Target("https://corp/security", "bookworm-security", "main"),
        Target("https://deb.nodesource.com/node_20.x", "nodistro", "main"),
    ]
    assert apt.sources_for(recipe("debian:bookworm-slim"), targets, BOOKWORM) == [
        "deb https://corp/debian bookworm main",
        "deb http://deb.debian.org/debian bookworm-updates main",
        "deb https://corp/security bookworm-security main",
    ]
    assert apt.sources_for(recipe("debian:trixie-slim"), targets, BOOKWORM)[0] == (
        "deb https://corp/debian trixie main"
    )
    assert apt.sources_for(recipe("ubuntu:24.04"), targets, BOOKWORM) == [
        "deb http://archive.ubuntu.com/ubuntu noble main",
        "deb http://archive.ubuntu.com/ubuntu noble-updates main",
        "deb http://security.ubuntu.com/ubuntu noble-security main",
    ]


def test_only_how_to_fetch_is_taken_from_apts_settings() -> None:
    kept = apt.transferable_settings(DUMP)
    assert [line.split(" ")[0] for line in kept.splitlines()] == [
        "Acquire::http::Proxy",
        "Acquire::https::CaInfo",
        "Acquire::Check-Valid-Until",
        "Acquire::Retries",
        "Dir::Etc::netrc",
        "Dir::Etc::netrcparts",
    ]


def test_this_machines_apt_can_be_asked() -> None:
    assert apt.host_release().distribution
    assert "Acquire" in apt.dump_settings()
    assert all(target.uri for target in apt.host_targets())


def test_no_secret_is_on_the_command_line() -> None:
    command = bootstrap_command(
        recipe("gantry/python:3"),
        Path("/t"),
        settings=Path("/s"),
        sources=["deb u s main"],
        keyring=Path("/k"),
    )
    assert command[0] == "mmdebstrap"
    assert "--aptopt=/s" in command
    assert "--keyring=/k" in command
    assert command[-3:] == ["bookworm", "/t", "deb u s main"]
    assert not [word for word in command if "Proxy" in word]


@pytest.mark.root
@pytest.mark.parametrize("name", ["debian:trixie-slim", "ubuntu:24.04"])
def test_the_archive_is_trusted_and_has_every_package(name: str, tmp_path: Path) -> None:
    """All of making a base but the download of the packages, with this machine's apt."""
    wanted = recipe(name)
    keyring = archive_key(wanted)
    assert keyring is not None
    settings = tmp_path / "apt.conf"
    settings.write_text(apt.transferable_settings(apt.dump_settings()))
    sources = apt.sources_for(wanted, apt.host_targets(), apt.host_release())
    tree = tmp_path / "tree"
    command = bootstrap_command(wanted, tree, settings=settings, sources=sources, keyring=keyring)
    command.insert(1, "--simulate")
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=apt.environment(wanted.epoch)
    )
    assert done.returncode == 0, done.stderr


def test_ubuntus_key_comes_along_where_the_machine_has_none(tmp_path: Path) -> None:
    keyring = archive_key(recipe("ubuntu:24.04"))
    assert keyring is not None
    shown = subprocess.run(
        ["gpg", "--homedir", tmp_path, "--batch", "--show-keys", "--with-colons", keyring],
        capture_output=True,
        text=True,
        check=True,
    )
    prints = {line.split(":")[9] for line in shown.stdout.splitlines() if line.startswith("fpr")}
    assert prints >= {
        "790BC7277767219C42C86F933B4FE6ACC0B21F32",
        "F6ECB3762474EDA9D21B7022871920D1991BC93C",
    }


def test_the_image_gets_the_distributions_own_sources() -> None:
    assert (
        apt.standard_sources(recipe("debian:bookworm-slim")).count("URIs: http://deb.debian") == 2
    )
    ubuntu = apt.standard_sources(recipe("ubuntu:24.04"))
    assert "Suites: noble noble-updates\n" in ubuntu
    assert "Signed-By: /usr/share/keyrings/ubuntu-archive-keyring.gpg" in ubuntu


def a_fresh_tree(tree: Path) -> Path:
    """What mmdebstrap leaves, as far as it matters here."""
    files = {
        "etc/apt/apt.conf.d/99mmdebstrap": 'Acquire::http::Proxy "http://user:pw@proxy";',
        "etc/apt/sources.list": "deb https://corp/debian bookworm main",
        "etc/apt/sources.list.d/0000x.list": "deb https://corp/security bookworm main",
        "etc/dpkg/dpkg.cfg.d/99mmdebstrap": "path-exclude=/usr/share/man/*",
        "etc/hostname": "secret-host",
        "etc/resolv.conf": "nameserver 10.1.2.3",
        "etc/machine-id": "0123456789abcdef",
        "etc/passwd": "root:x:0:0\n_apt:x:42:65534::/nonexistent:/usr/sbin/nologin\n",
        "etc/passwd-": "root:x:0:0",
        "usr/bin/python3": "python",
        "var/cache/apt/pkgcache.bin": "x",
        "var/lib/apt/lists/corp_debian_InRelease": "x",
        "var/lib/dpkg/status": "Package: x",
        "var/lib/dpkg/status-old": "Package: x",
        "var/log/apt/history.log": "secret-host",
        "var/log/wtmp": "secret-host",
        "tmp/left": "x",
    }
    for name, text in files.items():
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tree / "dev").mkdir()
    os.mknod(tree / "dev/null", 0o20666, os.makedev(1, 3))
    (tree / "usr/local/bin").mkdir(parents=True)
    (tree / "usr/sbin").mkdir(parents=True)
    os.utime(tree / "usr/bin/python3", (1_690_000_000, 1_690_000_000))
    return tree


@pytest.mark.root
def test_nothing_of_this_machine_stays_in_the_tree(tmp_path: Path) -> None:
    tree = a_fresh_tree(tmp_path / "tree")
    tidy.tidy(tree, recipe("gantry/python:3"))
    everything = b"".join(
        p.read_bytes() for p in tree.rglob("*") if p.is_file() and not p.is_symlink()
    )
    for secret in (b"secret-host", b"user:pw", b"corp", b"10.1.2.3", b"0123456789abcdef"):
        assert secret not in everything
    assert list((tree / "dev").iterdir()) == []
    assert (tree / "etc/machine-id").read_text() == ""
    assert (tree / "var/lib/apt/lists/partial").stat().st_uid == 42
    assert (tree / "usr/local/bin/python").readlink() == Path("/usr/bin/python3")
    assert (tree / "etc/dpkg/dpkg.cfg.d/90container").exists()
    assert (tree / "usr/sbin/policy-rc.d").stat().st_mode & 0o111


@pytest.mark.root
def test_the_layer_depends_on_the_packages_and_not_on_the_day(tmp_path: Path) -> None:
    digests = []
    for day in ("one", "two"):
        started = time.time()
        tree = a_fresh_tree(tmp_path / day)
        tidy.tidy(tree, recipe("gantry/python:3"))
        epoch = tidy.newest_packaged_time(tree, before=started - 1)
        assert epoch == 1_690_000_000
        digests.append(digest_of(tree, epoch=epoch))
        time.sleep(1.1)
    assert digests[0] == digests[1]


@pytest.mark.root
def test_a_base_that_is_there_is_not_made_again(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    name = Reference.parse("gantry/python:3")
    image = store.save_image(ImageConfig(architecture="amd64"), [a_layer(store)], names=[name])
    lines: list[str] = []
    assert make_base(name, store, progress=lines.append) == image
    assert lines == []


@pytest.mark.root
def test_a_mirror_that_does_not_answer_fails_with_apts_own_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = [Target("http://127.0.0.1:1/debian", f"bookworm{p}", "main") for p in apt.POCKETS]
    monkeypatch.setattr(apt, "host_targets", lambda: dead)
    monkeypatch.setattr(apt, "host_release", lambda: BOOKWORM)
    monkeypatch.setattr(apt, "dump_settings", lambda: 'Acquire::Retries "0";')
    store = Store(tmp_path / "store")
    with pytest.raises(BaseFailed, match=r"127\.0\.0\.1") as caught:
        make_base(Reference.parse("debian:bookworm-slim"), store)
    assert "apt-get update" in caught.value.hint
    assert store.names() == []
    assert list((store.root / "tmp").iterdir()) == []
