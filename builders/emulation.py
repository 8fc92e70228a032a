"""Whether this machine can run programs of another processor: qemu-user by binfmt_misc.

The kernel must have opened the emulator when it was registered (flag F, "fix binary" in
Documentation/admin-guide/binfmt-misc.rst): a sandbox has no file of that name.
"""

from __future__ import annotations

import re
import struct
from pathlib import Path

from builders.dockerfile.instructions import Run
from builders.errors import DockerfileError
from builders.plan import Plan, host_platform

BINFMT = Path("/proc/sys/fs/binfmt_misc")
# Class, byte order and e_machine of an ELF header, as elf(5) numbers them.
_ELF = {
    "386": (1, 1, 3), "amd64": (2, 1, 62), "arm": (1, 1, 40), "arm64": (2, 1, 183),
    "loong64": (2, 1, 258), "mips64": (2, 2, 8), "mips64le": (2, 1, 8), "ppc64le": (2, 1, 21),
    "riscv64": (2, 1, 243), "s390x": (2, 2, 22),
}  # fmt: skip
_CONTROL = ("register", "status")
# What a processor runs by itself beside its own.
_NATIVE = {("amd64", "386")}


def check_runnable(plan: Plan, registered: Path = BINFMT) -> Plan:
    """The plan. Raises DockerfileError for a RUN whose programs nothing here can run.

    Other instructions need no emulator: a stage that only copies can be of any platform.
    """
    for index in plan.needed:
        stage = plan.stages[index]
        run = next((step for step in stage.instructions if isinstance(step, Run)), None)
        if run is None or (trouble := why_not(stage.platform, registered)) is None:
            continue
        raise DockerfileError(
            f"This RUN is for {stage.platform}, whose programs this machine, "
            f"{host_platform()}, cannot run.",
            place=run.at.place,
            hint=trouble,
            code="dockerfile.platform",
        )
    return plan


def why_not(platform: str, registered: Path = BINFMT) -> str | None:
    """None where programs of ``platform`` run here, else what to do about it."""
    architecture = platform.split("/")[1]
    here = host_platform().split("/")[1]
    if architecture == here or (here, architecture) in _NATIVE:
        return None
    header = elf_header(architecture)
    if header is None:
        return "No emulator of it is known."
    without_flag = ""
    for name, text in _entries(registered):
        if not _takes(text, header):
            continue
        if "F" in _field(text, "flags:"):
            return None
        without_flag = name
    if without_flag:
        return (
            f"Its emulator {without_flag} is registered without the flag F, so that no sandbox "
            "finds it: register it with F, as qemu-user-static of Debian does."
        )
    return (
        "Install an emulator that registers itself: apt-get install qemu-user-static. "
        "Or run the step on this machine's own platform: FROM --platform=$BUILDPLATFORM."
    )


def elf_header(architecture: str) -> bytes | None:
    """The first 20 bytes of a program of ``architecture``, None for one that is not known."""
    if architecture not in _ELF:
        return None
    width, order, machine = _ELF[architecture]
    start = b"\x7fELF" + bytes([width, order, 1, 0]) + bytes(8)
    return start + struct.pack("<HH" if order == 1 else ">HH", 2, machine)


def _entries(registered: Path) -> list[tuple[str, str]]:
    """Names and texts of the formats that are in use; none where it is not mounted."""
    try:
        if (registered / "status").read_text().strip() != "enabled":
            return []
        paths = [path for path in sorted(registered.iterdir()) if path.name not in _CONTROL]
        found = [(path.name, path.read_text()) for path in paths]
    except OSError:
        return []
    return [(name, text) for name, text in found if text.startswith("enabled")]


def _takes(text: str, header: bytes) -> bool:
    """Whether a registration is for what begins with ``header``."""
    try:
        magic = bytes.fromhex(_field(text, "magic"))
        mask = bytes.fromhex(_field(text, "mask")) or b"\xff" * len(magic)
    except ValueError:
        return False
    if not magic or _field(text, "offset") != "0" or len(magic) > len(header):
        return False
    looked = zip(header, magic, mask, strict=False)
    return all((have ^ want) & bits == 0 for have, want, bits in looked)


def _field(text: str, name: str) -> str:
    found = re.search(rf"^{name} (.*)$", text, re.MULTILINE)
    return found[1] if found else ""
