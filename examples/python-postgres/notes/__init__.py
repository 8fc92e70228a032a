"""Notes in PostgreSQL: as little as a project with a database can be."""
