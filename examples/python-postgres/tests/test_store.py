"""The store, with the database that gantry.yml puts beside the tests."""

import os

import psycopg
import pytest
from notes.store import Notes


@pytest.fixture
def notes() -> Notes:
    return Notes(os.environ["DATABASE_URL"])


def test_a_note_is_kept(notes: Notes) -> None:
    number = notes.add("buy milk")
    assert number > 0
    assert notes.all()[-1] == "buy milk"


def test_quotes_are_only_text(notes: Notes) -> None:
    notes.add("'); DROP TABLE notes; --")
    assert notes.all()[-1] == "'); DROP TABLE notes; --"


def test_nothing_is_no_note(notes: Notes) -> None:
    with pytest.raises(psycopg.errors.NotNullViolation):
        notes.add(None)  # type: ignore[arg-type]
