"""Writes profile.json from table.txt: ``python -m runtime.seccomp``."""

from runtime import seccomp

seccomp.PROFILE.write_text(seccomp.render(seccomp.TABLE.read_text()))
