"""A root file system made from the host's own programs, for ``python -m runtime run`` without
``--rootfs``.

Not a view of the host's ``/``: only /usr, read-only, and what little of /etc programs do not start
without: files as copies, folders read-only, for those hold seven hundred links, which take longer
to copy than all the rest. No /root, /home, /var, /etc/shadow, keys or settings can be seen.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from runtime.spec import BindMount, Mount

LINKED = ("bin", "lib", "lib32", "lib64", "libx32", "sbin")
ETC = (
    "alternatives",
    "bash.bashrc",
    "group",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "nsswitch.conf",
    "passwd",
    "protocols",
    "services",
    "ssl/certs",
)
DIRECTORIES = ("home", "mnt", "root", "run", "tmp", "usr", "var/tmp")


def make(target: Path, host: Path = Path("/")) -> tuple[Mount, ...]:
    """Fill the empty directory ``target``; returns the mounts that complete it."""
    target.chmod(0o755)
    for name in DIRECTORIES:
        (target / name).mkdir(parents=True)
        (target / name).chmod(0o1777 if name.endswith("tmp") else 0o755)
    for name in LINKED:
        if (host / name).is_symlink():
            (target / name).symlink_to(f"usr/{name}")
    (target / "etc").mkdir()
    folders = []
    for name in ETC:
        source = host / "etc" / name
        if source.is_dir():
            folders.append(BindMount(source=source, target=f"/etc/{name}"))
        elif source.exists():
            shutil.copy2(source, target / "etc" / name)
    return (BindMount(source=host / "usr", target="/usr"), *folders)
