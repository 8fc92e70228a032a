"""Commits that wait for the disk, and those that need not."""

from __future__ import annotations

import pytest
from django.db import connection, transaction

from ciserver.lib.durability import repeatable

ASK = {"sqlite": "PRAGMA synchronous", "postgresql": "SHOW synchronous_commit"}
WAITS = {"sqlite": 2, "postgresql": "on"}  # FULL
WAITS_NOT = {"sqlite": 1, "postgresql": "off"}  # NORMAL


def says() -> object:
    with connection.cursor() as cursor:
        cursor.execute(ASK[connection.vendor])
        return cursor.fetchone()[0]


@pytest.mark.django_db(transaction=True)
def test_commits_wait_again_after_the_block_however_it_ends() -> None:
    assert says() == WAITS[connection.vendor]
    with pytest.raises(KeyError), repeatable():
        assert says() == WAITS_NOT[connection.vendor]
        raise KeyError
    assert says() == WAITS[connection.vendor]


@pytest.mark.django_db(transaction=True)
def test_a_connection_that_is_made_anew_meanwhile_waits() -> None:
    with repeatable():
        connection.close()
        assert says() == WAITS[connection.vendor]
    assert says() == WAITS[connection.vendor]


@pytest.mark.django_db(transaction=True)
def test_in_a_transaction_nothing_changes() -> None:
    with transaction.atomic(), repeatable():
        assert says() == WAITS[connection.vendor]
