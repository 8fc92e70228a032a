"""Git over smart HTTP: who may (access), what runs (backend), and the ASGI application (app)."""

from ciserver.repositories.http.app import GitHttp

__all__ = ["GitHttp"]
