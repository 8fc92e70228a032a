"""Projects, their members and secrets."""
