"""Builds the client's wheel (PEP 517, PEP 427) with nothing but the standard library.

The client lies inside the service's package, and is to be installed without it: that takes the
files of one folder and a list of what they need, for which no build tool must be fetched first.
"""

from __future__ import annotations

import base64
import hashlib
import re
import tomllib
import zipfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
SOURCES = HERE.parent / "ciserver"
NAME = "gantry_client"
STAMP = (1980, 1, 1, 0, 0, 0)  # the same files make the same wheel


def build_wheel(
    wheel_directory: str,
    config_settings: dict[str, Any] | None = None,
    metadata_directory: str | None = None,
) -> str:
    """Write the wheel into ``wheel_directory``; returns its name."""
    version = _version()
    info = f"{NAME}-{version}.dist-info"
    files = {
        str(path.relative_to(SOURCES.parent)): path.read_bytes()
        for path in [SOURCES / "__init__.py", *sorted((SOURCES / "cli").rglob("*.py"))]
    }
    files |= {f"{info}/{name}": text.encode() for name, text in _metadata(version).items()}
    record = "".join(f"{name},{_hash(content)},{len(content)}\n" for name, content in files.items())
    files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    name = f"{NAME}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(Path(wheel_directory) / name, "w", zipfile.ZIP_DEFLATED) as wheel:
        for path, content in files.items():
            entry = zipfile.ZipInfo(path, STAMP)
            entry.external_attr = 0o644 << 16
            wheel.writestr(entry, content, zipfile.ZIP_DEFLATED)
    return name


def _metadata(version: str) -> dict[str, str]:
    project = tomllib.loads((HERE / "pyproject.toml").read_text())["project"]
    headers = [
        ("Metadata-Version", "2.1"),
        ("Name", project["name"]),
        ("Version", version),
        ("Summary", project["description"]),
        ("License", project["license"]["text"]),
        ("Requires-Python", project["requires-python"]),
        *(("Requires-Dist", one) for one in project["dependencies"]),
    ]
    scripts = "".join(f"{name} = {place}\n" for name, place in project["scripts"].items())
    return {
        "METADATA": "".join(f"{name}: {value}\n" for name, value in headers),
        "WHEEL": "Wheel-Version: 1.0\nGenerator: gantry\nRoot-Is-Purelib: true\n"
        "Tag: py3-none-any\n",
        "entry_points.txt": f"[console_scripts]\n{scripts}",
    }


def _version() -> str:
    found = re.search(r'^__version__ = "([^"]+)"', (SOURCES / "__init__.py").read_text(), re.M)
    if found is None:
        raise RuntimeError("ciserver/__init__.py has no __version__.")
    return found[1]


def _hash(content: bytes) -> str:
    """As RECORD has it: base64 without its padding (PEP 376, PEP 427)."""
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest())
    return f"sha256={digest.rstrip(b'=').decode()}"
