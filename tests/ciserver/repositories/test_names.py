"""Names as outsiders write them, against what git itself says of them."""

from __future__ import annotations

import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ciserver.repositories.errors import BadName
from ciserver.repositories.names import check_path, check_ref, is_null, is_sha

PIECES = st.sampled_from(
    [*"ab/.-~^:?*[\\@{} \t\n\x7f", "..", ".lock", "@{", "//", "é", "refs/", "heads/", "HEAD"]
)


@settings(max_examples=120, deadline=None)
@given(st.lists(PIECES, max_size=8).map("".join))
def test_every_ref_we_take_git_takes_too(tail: str) -> None:
    ref = f"refs/heads/{tail}"
    try:
        check_ref(ref)
    except BadName:
        return
    assert subprocess.run(["git", "check-ref-format", ref], check=False).returncode == 0


@pytest.mark.parametrize(
    "ref", ["refs/heads/main", "refs/tags/v1.0", "refs/heads/feature/üñí", "refs/heads/a-b_c@d"]
)
def test_ordinary_refs_are_taken(ref: str) -> None:
    assert check_ref(ref) == ref


@pytest.mark.parametrize(
    "ref",
    [
        "main",
        "HEAD",
        "refs/heads",
        "refs/heads/",
        "refs/heads/-x",
        "refs/heads/../x",
        "refs/heads/a.lock",
        "refs/heads/a\0b",
        "refs/heads/\ud800",
        "refs/heads/" + "x" * 300,
        "--upload-pack=x",
        "+refs/heads/a:refs/heads/b",
    ],
)
def test_crooked_refs_are_refused(ref: str) -> None:
    with pytest.raises(BadName):
        check_ref(ref)


@given(st.text(max_size=80))
def test_any_text_is_a_good_ref_or_refused(text: str) -> None:
    for check in (check_ref, check_path):
        try:
            check(text)
        except BadName as error:
            assert str(error)


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("a" * 40, True),
        ("0" * 64, True),
        ("a" * 41, False),
        ("g" * 40, False),
        ("a" * 40 + "\n", False),
    ],
)
def test_a_sha_is_40_or_64_small_hexadecimal_digits(text: str, good: bool) -> None:
    assert is_sha(text) is good


def test_all_zeros_mean_nothing() -> None:
    assert is_null("0" * 40)
    assert not is_null("0" * 39 + "1")
