"""Images made of this machine's own installed packages: Python with pytest, and PostgreSQL.

What ``gantry base`` fetches from a mirror in a minute or two is here already; the programs are
the same. Python's libraries are those of this environment.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from builders import bases
from builders.bases.recipes import POSTGRES, PYTHON, find_recipe
from builders.images.layerstore import Layer
from builders.images.reference import Reference
from builders.images.store import Store

SERVER = Path("/usr/lib/postgresql/15")
LIBRARY = Path("/usr/lib/python3.11")
SITE = Path(sys.prefix) / "lib/python3.11/site-packages"
MODULES = ("_pytest", "pytest", "pluggy", "iniconfig", "packaging", "pygments", "psycopg",
           "psycopg_binary", "psycopg_binary.libs", "py.py", "typing_extensions.py")  # fmt: skip
LEFT_OUT = shutil.ignore_patterns(
    "__pycache__",
    "bitcode",
    "llvmjit*",
    "test",
    "idlelib",
    "ensurepip",
    "config-3*",
    "tests",
    "lib2to3",
    "distutils",
    "tkinter",
    "pydoc_data",
    "turtledemo",
)
# Those with libraries of their own; to ask for each would take longer than all the rest.
MODULES_IN_C = [
    *(path for name in ("_ssl", "_hashlib", "_ctypes") for path in LIBRARY.rglob(f"{name}.*.so")),
    *SITE.glob("psycopg_binary*/*.so*"),
]
PROGRAMS = [SERVER / "bin" / name for name in ("postgres", "initdb", "pg_isready")]
USERS = "root:x:0:0:root:/root:/bin/sh\npostgres:x:999:999::/var/lib/postgresql:/bin/sh\n"
EPOCH = 1_700_000_000


def make_host_images(store: Store, work: Path) -> None:
    """``gantry/python:3`` and ``gantry/postgres:15`` in ``store``."""
    python = _layer(store, work / "python", [LIBRARY], MODULES_IN_C, _python_extras)
    server = _layer(
        store, work / "server", [SERVER, Path("/usr/share/postgresql/15")], PROGRAMS, _server_extras
    )
    for name, layer in ((PYTHON, python), (POSTGRES, server)):
        reference = Reference.parse(name)
        config = bases._config(find_recipe(reference), reference, EPOCH)
        config = replace(config, env=(*config.env, "PYTHONDONTWRITEBYTECODE=1"))
        store.save_image(config, [layer], names=[reference])


def _layer(
    store: Store,
    tree: Path,
    folders: Sequence[Path],
    programs: Sequence[Path],
    extras: Callable[[Path], None],
) -> Layer:
    for folder in ("bin", "etc", "tmp", "root", "usr/bin", "var/lib/postgresql", "lib64"):
        (tree / folder).mkdir(parents=True)
    (tree / "tmp").chmod(0o1777)
    shutil.chown(tree / "var/lib/postgresql", 999, 999)
    (tree / "etc/passwd").write_text(USERS)
    (tree / "etc/group").write_text("root:x:0:\npostgres:x:999:\n")
    (tree / "etc/nsswitch.conf").write_text("hosts: files dns\n")
    shutil.copy2("/bin/busybox", tree / "bin/busybox")
    for applet in ("sh", "cat", "ls", "rm", "mkdir"):
        (tree / "bin" / applet).symlink_to("busybox")
    for folder in folders:
        target = tree / folder.relative_to("/")
        shutil.copytree(folder, target, symlinks=True, ignore=LEFT_OUT, dirs_exist_ok=True)
    extras(tree)
    files = [*programs, *(path for path in (tree / "usr/bin").iterdir())]
    for library in _libraries(files):
        target = tree / library.relative_to("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(library, target)
    layer = store.commit_tree(tree, base=0, epoch=EPOCH)
    shutil.rmtree(tree, ignore_errors=True)
    return layer


def _python_extras(tree: Path) -> None:
    shutil.copy2("/usr/bin/python3.11", tree / "usr/bin/python3")
    target = tree / "usr/lib/python3/dist-packages"
    target.mkdir(parents=True)
    for name in MODULES:
        source = SITE / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.exists():
            shutil.copy2(source, target / name)


def _server_extras(tree: Path) -> None:
    zones = Path("/usr/share/zoneinfo")
    (tree / "usr/share/zoneinfo").mkdir(parents=True)
    shutil.copy2(zones / "UTC", tree / "usr/share/zoneinfo/UTC")


def _libraries(programs: Iterable[Path]) -> list[Path]:
    """What the dynamic linker would load for them (ldd(1)), by the paths it would use."""
    done = subprocess.run(["ldd", *map(str, programs)], capture_output=True, text=True, check=False)
    found = re.findall(r"(?:=> |^\s+)(/\S+) \(0x", done.stdout, re.MULTILINE)
    return sorted({path for path in map(Path, found) if not path.is_relative_to(SITE)})
