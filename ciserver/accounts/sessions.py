"""Sessions that know whose they are, so that people can see and end their own (SESSION_ENGINE)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.contrib.sessions.backends.db import SessionStore as DatabaseStore
from django.http import HttpRequest
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from ciserver.accounts.models import Session, User

USER = "_auth_user_id"  # django.contrib.auth.SESSION_KEY


class SessionStore(DatabaseStore):
    """Django's database sessions, with the columns that ``Session`` adds."""

    @classmethod
    def get_model_class(cls) -> type[Session]:
        return Session

    def create_model_instance(self, data: Mapping[str, Any]) -> Session:
        row: Session = super().create_model_instance(data)  # type: ignore[arg-type,assignment]  # its stubs know Django's own row alone
        row.user_id = int(data[USER]) if data.get(USER) else None
        row.signed_in_at = parse_datetime(data.get("signed_in_at", ""))
        row.address = data.get("address", "")
        row.agent = data.get("agent", "")
        return row


def note_sign_in(request: HttpRequest, address: str) -> None:
    """Write into the session from where and by what somebody signed in."""
    request.session["signed_in_at"] = timezone.now().isoformat()
    request.session["address"] = address
    request.session["agent"] = request.headers.get("User-Agent", "")[:200]


def end_sessions(user: User, *, but: str | None = None) -> None:
    """End what ``user`` is signed in with, but for the session of that key."""
    user.sessions.exclude(session_key=but or "").delete()
