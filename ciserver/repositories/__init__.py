"""Git: hosted repositories and mirrors."""
