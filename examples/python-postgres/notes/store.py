"""Writing and reading notes."""

import psycopg

TABLE = "CREATE TABLE IF NOT EXISTS notes (id serial PRIMARY KEY, text text NOT NULL)"


class Notes:
    def __init__(self, url: str) -> None:
        self._connection = psycopg.connect(url, autocommit=True)
        self._connection.execute(TABLE)

    def add(self, text: str) -> int:
        found = self._connection.execute(
            "INSERT INTO notes (text) VALUES (%s) RETURNING id", [text]
        ).fetchone()
        assert found is not None
        return int(found[0])

    def all(self) -> list[str]:
        rows = self._connection.execute("SELECT text FROM notes ORDER BY id")
        return [text for (text,) in rows]
