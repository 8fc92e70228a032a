"""Base images made on this machine from its own package mirror: ``gantry base``.

No registry is needed. mmdebstrap installs the packages with the machine's apt
settings (mirror, proxy, credentials, certificates), none of which is left in the
image: its sources are the distribution's standard ones, its certificates those of
the ca-certificates package. So the same packages give the same layer on every
machine, and an image tells nothing about where it was made.
"""

from __future__ import annotations

import platform
import shlex
import subprocess
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from builders.bases import apt, tidy
from builders.bases.recipes import Recipe, find_recipe, recipe_names
from builders.errors import ServiceError
from builders.images.config import Healthcheck, History, ImageConfig
from builders.images.manifest import host_architecture
from builders.images.reference import Reference
from builders.images.store import Image, Store

__all__ = ["Recipe", "find_recipe", "make_base", "recipe_names"]

Progress = Callable[[str], None]

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_WORDS_KEPT = 12
_CLOCK_SLACK = 2.0


class BaseFailed(ServiceError):
    """A base image could not be made on this machine."""

    code = "base"


def make_base(
    name: Reference, store: Store, *, again: bool = False, progress: Progress | None = None
) -> Image:
    """The base image of that name: from the store, or made now (half a minute or so).

    ``again`` makes it anew, for newer packages. ``progress`` gets lines of text.
    Raises ImageNotFound for a name without recipe, BaseFailed.
    """
    recipe = find_recipe(name)
    known = None if again else store.find_image(name)
    if known is not None:
        return known
    say = progress or (lambda _: None)
    say(f"Making {name.familiar}: {recipe.distribution} {recipe.suite} with mmdebstrap")
    started = time.time()
    with store.staging() as folder:
        tree = folder / "tree"
        _bootstrap(recipe, tree, folder, say)
        say("Removing what belongs to this machine or to its package manager")
        tidy.tidy(tree, recipe)
        epoch = tidy.newest_packaged_time(tree, before=started - _CLOCK_SLACK)
        layer = store.commit_tree(tree, base=0, epoch=epoch)
    image = store.save_image(_config(recipe, name, epoch), [layer], names=[name])
    store.settle()
    say(f"{name.familiar} is ready: {layer.files} files, {layer.size >> 20} MiB")
    return image


def _bootstrap(recipe: Recipe, tree: Path, folder: Path, say: Progress) -> None:
    keyring = archive_key(recipe)
    if keyring is None:
        raise BaseFailed(
            f"The archive key of {recipe.distribution} ({recipe.keyring}) is not on this machine.",
            hint=f"Install it: apt-get install {recipe.keyring_package}",
        )
    settings = folder / "apt.conf"
    settings.write_text(apt.transferable_settings(apt.dump_settings()))
    settings.chmod(0o600)  # a proxy's address may hold a password
    sources = apt.sources_for(recipe, apt.host_targets(), apt.host_release())
    command = bootstrap_command(recipe, tree, settings=settings, sources=sources, keyring=keyring)
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=apt.environment(recipe.epoch),
        )
    except FileNotFoundError:
        raise BaseFailed(
            "mmdebstrap is not installed.", hint="Install it: apt-get install mmdebstrap"
        ) from None
    words: deque[str] = deque(maxlen=_WORDS_KEPT)
    with process:
        try:
            for line in process.stdout or ():
                words.append(line.rstrip())
                if line.startswith(("I: ", "W: ", "E: ")):
                    say(line[3:].rstrip())
        except BaseException:
            process.terminate()  # nobody waits for it any more: it removes what it has made
            raise
    if process.returncode != 0:
        raise BaseFailed(
            "mmdebstrap failed:\n" + "\n".join(words),
            hint="Check that this machine's apt works: apt-get update",
        )


def archive_key(recipe: Recipe) -> Path | None:
    """What the distribution signs with: this machine's copy, else ours; None without either.

    Ours is that of Ubuntu's package ubuntu-keyring 2023.11.28, which Debian 12 does not have. Its
    archive keys are 790BC7277767219C42C86F933B4FE6ACC0B21F32 (2012) and
    F6ECB3762474EDA9D21B7022871920D1991BC93C (2018).
    """
    known = Path(recipe.keyring)
    places = (known, Path(__file__).with_name("keyrings") / known.name)
    return next((path for path in places if path.exists()), None)


def bootstrap_command(
    recipe: Recipe, tree: Path, *, settings: Path, sources: list[str], keyring: Path
) -> list[str]:
    """mmdebstrap's arguments. Excluded paths are excluded for later installs too, as in
    docker's slim images.

    By a hook: what comes as ``--dpkgopt`` has mmdebstrap read each archive in Python as well. The
    hook comes once the first packages are extracted, which dpkg then unpacks again.
    """
    patterns = [f"path-exclude={pattern}" for pattern in tidy.EXCLUDED]
    patterns += [f"path-include={pattern}" for pattern in tidy.INCLUDED]
    folders = " ".join(pattern.removesuffix("/*").lstrip("/") for pattern in tidy.EXCLUDED)
    leave_out = (
        f"printf '%s\\n' {shlex.join(patterns)} >\"$1\"/etc/dpkg/dpkg.cfg.d/99mmdebstrap"
        f' && cd "$1" && for at in {folders}; do'
        ' [ -d "$at" ] || continue; made=$(stat -c @%Y "$at");'
        ' find "$at" -mindepth 1 -delete; touch -d "$made" "$at"; done'
    )
    return [
        "mmdebstrap",
        "--mode=root",
        "--variant=minbase",
        "--format=directory",
        f"--architectures={host_architecture()}",
        f"--keyring={keyring}",
        *([f"--include={','.join(recipe.packages)}"] if recipe.packages else []),
        f"--aptopt={settings}",
        '--aptopt=Acquire::Languages "none"',
        f"--extract-hook={leave_out}",
        recipe.suite,
        str(tree),
        *sources,
    ]


def _path(recipe: Recipe) -> str:
    """Debian keeps the programs of PostgreSQL's server where no PATH leads."""
    server = [name for name in recipe.packages if name.startswith("postgresql-")]
    folders = [f"/usr/lib/postgresql/{name.partition('-')[2]}/bin" for name in server]
    return ":".join([*folders, _PATH])


def _config(recipe: Recipe, name: Reference, epoch: int) -> ImageConfig:
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(epoch))
    return ImageConfig(
        architecture=host_architecture(),
        variant="v8" if platform.machine() == "aarch64" else "",
        created=created,
        env=(f"PATH={_path(recipe)}",),
        cmd=recipe.command or None,
        entrypoint=recipe.entrypoint or None,
        user=recipe.user,
        exposed_ports=recipe.exposed,
        healthcheck=Healthcheck(test=recipe.health) if recipe.health else None,
        labels={
            "org.opencontainers.image.title": name.familiar,
            "org.opencontainers.image.version": recipe.suite,
            "io.gantry.base.distribution": recipe.distribution,
            "io.gantry.base.suite": recipe.suite,
            "io.gantry.base.method": "mmdebstrap minbase",
            "io.gantry.base.packages": " ".join(recipe.packages),
        },
        history=(
            History(
                created=created,
                created_by=" ".join(
                    ("gantry base: mmdebstrap --variant=minbase", recipe.suite, *recipe.packages)
                ),
            ),
        ),
    )
