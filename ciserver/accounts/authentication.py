"""Bearer tokens for the API (RFC 6750), and as passwords for programs that know only Basic."""

from __future__ import annotations

import base64
import binascii

from django.http import HttpRequest
from rest_framework import exceptions
from rest_framework.authentication import BaseAuthentication
from rest_framework.request import Request

from ciserver.accounts.models import Token, User

SAFE = {"GET", "HEAD", "OPTIONS"}
# First words of addresses of the API that a token limited to one project may ask.
OF_PROJECTS = {
    "artifacts",
    "audit",
    "cases",
    "commands",
    "deliveries",
    "deployments",
    "environments",
    "hosts",
    "http_sd",
    "images",
    "inspections",
    "jobs",
    "lint",
    "pipelines",
    "projects",
    "pull-requests",
    "releases",
    "schedules",
    "search",
    "stops",
}


class TokenAuthentication(BaseAuthentication):
    """``Authorization: Bearer gantry_…``. A read token is refused for anything but reading."""

    def authenticate(self, request: Request) -> tuple[User, Token] | None:
        if not _scheme_and_text(request._request)[0]:
            return None
        token = bearer(request._request)
        if token is None:
            raise exceptions.AuthenticationFailed(
                "This token is unknown or has expired. Make a new one on the page /tokens/."
            )
        if request.method not in SAFE and not token.may_write:
            raise exceptions.PermissionDenied(
                "This token may only read. Make one with the scope 'write'."
            )
        if token.project_id and not _is_of_projects(request):
            raise exceptions.PermissionDenied(
                "This token is limited to one project. Make one that is not, on the page /tokens/."
            )
        token.touch()
        return token.user, token

    def authenticate_header(self, request: Request) -> str:
        return 'Bearer realm="gantry"'


def _is_of_projects(request: Request) -> bool:
    """Whether what it asks looks up projects first, so that a limit to one of them holds."""
    path = request._request.path.partition("/api/v1/")[2]
    return path.partition("/")[0] in OF_PROJECTS or (path == "me/" and request.method in SAFE)


def bearer(request: HttpRequest) -> Token | None:
    """The living token that the request shows, looked up once."""
    is_bearer, text = _scheme_and_text(request)
    if not is_bearer:
        return None
    known: tuple[str, Token | None] = getattr(request, "_gantry_token", ("", None))
    if known[0] != text:
        known = text, Token.objects.find(text)
        request._gantry_token = known  # type: ignore[attr-defined]  # a note for the next who asks
    return known[1]


def _scheme_and_text(request: HttpRequest) -> tuple[bool, str]:
    """Whether it is a bearer token, and what it is."""
    scheme, _, text = request.headers.get("Authorization", "").partition(" ")
    return scheme.lower() == "bearer", text.strip()


def basic_credentials(request: HttpRequest) -> tuple[str, str]:
    """Name and password of HTTP Basic (RFC 7617); both empty when there are none."""
    scheme, _, encoded = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return "", ""
    try:
        name, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return "", ""
    return name, password


def reader(request: HttpRequest) -> User | None:
    """Who reads an address that is no page and no part of the API, such as ``/metrics``.

    By session, by bearer token, or by a token as the password of HTTP Basic.
    """
    return reading(request)[0]


def reading(request: HttpRequest) -> tuple[User | None, Token | None]:
    """As ``reader``, with the token that said so: for what goes on as long as that counts."""
    if request.user.is_authenticated:
        return request.user, None
    scheme, _, text = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        _, text = basic_credentials(request)
    token = Token.objects.find(text.strip())
    if token is None:
        return None, None
    token.touch()
    return token.user, token
