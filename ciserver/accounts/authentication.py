"""Bearer tokens for the API (RFC 6750)."""

from __future__ import annotations

from rest_framework import exceptions
from rest_framework.authentication import BaseAuthentication, get_authorization_header
from rest_framework.request import Request

from ciserver.accounts.models import Token, User

SAFE = {"GET", "HEAD", "OPTIONS"}


class TokenAuthentication(BaseAuthentication):
    """``Authorization: Bearer gantry_…``. A read token is refused for anything but reading."""

    def authenticate(self, request: Request) -> tuple[User, Token] | None:
        scheme, _, text = get_authorization_header(request).decode("latin-1").partition(" ")
        if scheme.lower() != "bearer":
            return None
        token = Token.objects.find(text.strip())
        if token is None:
            raise exceptions.AuthenticationFailed(
                "This token is unknown or has expired. Make a new one on the page /tokens/."
            )
        if request.method not in SAFE and not token.may_write:
            raise exceptions.PermissionDenied(
                "This token may only read. Make one with the scope 'write'."
            )
        token.touch()
        return token.user, token

    def authenticate_header(self, request: Request) -> str:
        return 'Bearer realm="gantry"'
