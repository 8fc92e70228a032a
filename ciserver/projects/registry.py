"""The registry's token endpoint: who may pull which project's images.

https://distribution.github.io/distribution/spec/auth/token/
"""

from __future__ import annotations

from datetime import UTC, datetime

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.http import require_GET

from ciserver.accounts.authentication import basic_credentials
from ciserver.accounts.models import Token
from ciserver.accounts.registry_tokens import (
    LIFETIME,
    PULL_USER,
    Access,
    issue,
    parse_scopes,
    repository_of,
)
from ciserver.lib.problems import problem_response
from ciserver.projects.models import Project


@require_GET
def token(request: HttpRequest) -> HttpResponse:
    """``GET ?service=&scope=repository:NAME:pull`` with Basic credentials: a token to pull.

    People give any name and one of their tokens as password; a deployment gives PULL_USER and
    a password made for one repository. What is not allowed is left out of the token, as the
    specification asks; the registry then refuses.
    """
    asked = parse_scopes(request.GET.getlist("scope"))
    name, password = basic_credentials(request)
    if name == PULL_USER:
        repository = repository_of(password)
        if repository is None:
            return _refused()
        granted = [
            Access(item.repository, ("pull",))
            for item in asked
            if item.repository == repository and "pull" in item.actions
        ]
    else:
        found = Token.objects.find(password)
        if found is None:
            return _refused()
        seen = Project.objects.visible_to(found.user)
        granted = [
            Access(item.repository, ("pull",))
            for item in asked
            if "pull" in item.actions and seen.filter(slug=item.repository.split("/")[0]).exists()
        ]
    text = issue(name, granted)
    return JsonResponse(
        {
            "token": text,
            "access_token": text,
            "expires_in": LIFETIME,
            "issued_at": datetime.now(UTC).isoformat(timespec="seconds"),
        }
    )


def _refused() -> HttpResponse:
    response = problem_response(
        401,
        code="registry.credentials",
        detail="The registry needs a name and a token of yours as password.",
        hint="Make a token on your account's page, then: docker login.",
    )
    response.headers["WWW-Authenticate"] = 'Basic realm="gantry"'
    return response
