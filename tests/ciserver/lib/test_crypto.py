"""Sealing: a ciphertext opens in its place, and nowhere else."""

from __future__ import annotations

import pytest

from ciserver.lib.crypto import SealBroken, Secret, seal, unseal


def test_what_was_sealed_opens_in_its_place() -> None:
    assert unseal(seal(Secret("hunter2"), "t:1:c"), "t:1:c").reveal() == "hunter2"


def test_a_ciphertext_moved_to_another_row_does_not_open() -> None:
    with pytest.raises(SealBroken):
        unseal(seal(Secret("hunter2"), "t:1:c"), "t:2:c")


def test_a_key_that_is_gone_is_named() -> None:
    _, _, payload = seal(Secret("x"), "p").partition(":")
    with pytest.raises(SealBroken, match="key '9'"):
        unseal(f"9:{payload}", "p")


def test_a_secret_cannot_print_itself_nor_be_compared_by_accident() -> None:
    secret = Secret("hunter2")
    assert "hunter2" not in f"{secret} {secret!r}"
    with pytest.raises(TypeError):
        _ = secret == "hunter2"
