"""Every part of the Dockerfile language that is promised has a case that shows it."""

from __future__ import annotations

import re

import pytest

from tests.builders.cases import all_cases

# What is promised -> cases; a name may be a pattern.
BULLETS = {
    "directive escape": "escape-backtick",
    "directive syntax": "directive-syntax",
    "directive check": "directive-check",
    "FROM with stages": "from-stage|from-stages-.*|from-unused-stage-is-skipped|from-mixed-case",
    "FROM with platforms": "from-platform|error-platform",
    "global ARG": "from-global-arg.*",
    "stage ARG": "arg-scope-after-line|from-stage-arg-not-inherited|arg-several|arg-redeclared",
    "predefined ARGs": "arg-predefined.*",
    "expansion :- and -": "expand-default|expand-alternatives",
    "expansion :+ and +": "expand-alternatives",
    "expansion :? and ?": "error-expansion-required|expand-alternatives",
    "expansion #p %p": "expand-prefix-suffix",
    "expansion /a/b": "expand-replace|expand-patterns",
    "expansion: where, and quotes": "expand-everywhere|expand-in-copy|expand-in-quotes",
    "RUN heredocs": "run-heredoc.*",
    "COPY heredocs": "copy-heredoc.*|add-heredoc",
    "RUN --mount=cache": "run-mount-cache.*",
    "RUN --mount=bind": "run-mount-bind.*|run-mount-relative",
    "RUN --mount=secret": "run-mount-secret.*|error-run-secret-required",
    "RUN --mount=tmpfs": "run-mount-tmpfs.*",
    "RUN --mount=ssh": "run-mount-ssh|error-run-ssh-required",
    "RUN --network": "run-network-.*|error-run-host-network",
    "RUN --security": "run-security-sandbox|error-run-security",
    "wildcards": "copy-wildcard.*",
    "--from stage, image, index": "copy-from-stage|copy-from-image|copy-from-index",
    "--chown": "copy-chown.*|error-copy-unknown-user|copy-from-stage-chown",
    "--chmod": "copy-chmod.*|error-copy-bad-mode",
    "--link": "copy-link.*|add-link",
    "--parents": "copy-parents.*",
    "--exclude": "copy-exclude.*",
    "ADD of URLs": "add-url|error-add-url|error-add-checksum",
    "ADD of git": "error-add-git-protocol",  # fetched: test_add_git.py
    "ADD of archives": "add-archive.*|add-not-an-archive|add-no-unpack",
    ".dockerignore": "ignore-.*|error-ignore-pattern|error-copy-ignored",
    "<Dockerfile>.dockerignore": "ignore-per-dockerfile",
    "ENV": "env-.*",
    "LABEL": "label.*",
    "EXPOSE": "expose.*|error-expose",
    "VOLUME": "volume.*",
    "USER": "user-.*",
    "WORKDIR": "workdir-.*|error-workdir-.*",
    "STOPSIGNAL": "stopsignal|error-stopsignal",
    "SHELL": "shell.*|error-shell-form",
    "HEALTHCHECK": "healthcheck.*",
    "ONBUILD": "onbuild-.*|error-onbuild-from",
    "CMD": "cmd-.*",
    "ENTRYPOINT": "entrypoint-.*",
    "MAINTAINER": "maintainer",
    "--target": "target-.*|error-unknown-stage-target",
    "--build-arg": "arg-default-and-override",
    "--label": "label-of-the-command-line",
    "modes": "copy-source-modes|run-modes|copy-from-stage-setuid",
    "hard links": "run-hard-links|copy-from-stage-hard-links|run-links|copy-hard-links",
    "symlinked destinations": "copy-to-symlinked-folder|copy-through-symlink|copy-over-.*symlink.*",
    "directories": "copy-folder.*|copy-empty-folder|copy-below-set-group-id",
    "extended attributes": "add-archive-special",
    "owners": "add-archive-owners-stay|copy-from-stage-chown|workdir-created-with-owner",
    "whiteouts": "run-removes|whiteout-file-by-folder|run-renames",
    "opaque directories": "opaque-folder|run-replaces-folder",
    "devices and pipes": "run-special-files",
    "errors: nearest names": "error-copy-missing|error-unknown-instruction",
}
NAMES = [case.name for case in all_cases()]


@pytest.mark.parametrize("bullet", BULLETS)
def test_a_promised_part_of_the_language_has_its_cases(bullet: str) -> None:
    for pattern in BULLETS[bullet].split("|"):
        assert any(re.fullmatch(pattern, name) for name in NAMES), pattern


def test_there_are_enough_of_them_and_each_says_what_must_come_out() -> None:
    assert len(NAMES) >= 150
    for case in all_cases():
        assert (case.error is None) == case.expected.exists(), case.name
