"""Everything that a page can do, the API can: each page that is posted to names its route."""

from __future__ import annotations

from tests.ciserver.access.matrix import MATRIX
from tests.ciserver.access.routes import routes
from tests.ciserver.access.test_matrix import _renamed

OF = "/projects/{slug}/"
DOES: dict[str, tuple[str, ...]] = {
    "/new-project/": ("POST /projects/",),
    "/tokens/": ("POST /tokens/",),
    "/account/": ("POST /me/password/",),
    "/users/": ("POST /users/",),
    "/users/{username}/change/": (
        "PATCH /users/{username}/",
        "POST /users/{username}/reset-password/",
    ),
    "/teams/": ("POST /teams/",),
    "/teams/{team}/change/": (
        "PUT /teams/{team}/members/{username}/",
        "DELETE /teams/{team}/members/{username}/",
        "DELETE /teams/{team}/",
    ),
    f"{OF}members/": (f"PUT {OF}members/{{username}}/", f"PUT {OF}teams/{{team}}/"),
    f"{OF}members/remove/": (f"DELETE {OF}members/{{username}}/", f"DELETE {OF}teams/{{team}}/"),
    f"{OF}hook-test/": (f"POST {OF}hook-test/",),
    f"{OF}hook-secret/": (f"POST {OF}hook-secret/", f"DELETE {OF}hook-secret/"),
    f"{OF}repository/": (f"PATCH {OF}repository/",),
    f"{OF}repository/key/": (f"POST {OF}repository/access/key/",),
    f"{OF}repository/login/": (f"PUT {OF}repository/access/login/",),
    f"{OF}repository/forget/": (
        f"DELETE {OF}repository/access/login/",
        f"DELETE {OF}repository/access/host-keys/",
    ),
    f"{OF}statuses/": (f"PUT {OF}statuses/",),
    f"{OF}statuses/remove/": (f"DELETE {OF}statuses/",),
    f"{OF}webhooks/": (f"POST {OF}webhooks/",),
    f"{OF}webhooks/{{webhook}}/": (
        f"PATCH {OF}webhooks/{{webhook}}/",
        f"DELETE {OF}webhooks/{{webhook}}/",
        f"POST {OF}webhooks/{{webhook}}/rotate/",
        f"POST {OF}webhooks/{{webhook}}/test/",
        f"POST {OF}webhooks/{{webhook}}/messages/{{message}}/redeliver/",
    ),
    f"{OF}pulls/{{pk}}/approve/": ("POST /pull-requests/{pk}/approve/",),
    f"{OF}building/": (f"PATCH {OF}",),
    f"{OF}secrets/": (f"PUT {OF}secrets/{{secret}}/",),
    f"{OF}secrets/remove/": (f"DELETE {OF}secrets/{{secret}}/",),
    f"{OF}start/": ("POST /pipelines/", "GET /pipelines/inputs/"),
    f"{OF}pipelines/{{number}}/cancel/": ("POST /pipelines/{pk}/cancel/",),
    f"{OF}pipelines/{{number}}/run-again/": ("POST /pipelines/{pk}/run-again/",),
    f"{OF}new-environment/": ("POST /environments/",),
    f"{OF}environments/{{name}}/remove/": ("DELETE /environments/{pk}/",),
    f"{OF}archive/": (f"POST {OF}archive/", f"POST {OF}restore/", f"DELETE {OF}"),
    f"{OF}environments/{{name}}/edit/": ("PATCH /environments/{pk}/",),
    f"{OF}environments/{{name}}/secrets/": ("PUT /environments/{pk}/secrets/{secret}/",),
    f"{OF}environments/{{name}}/secrets/remove/": ("DELETE /environments/{pk}/secrets/{secret}/",),
    f"{OF}environments/{{name}}/containers/{{verb}}/": ("POST /environments/{pk}/commands/",),
    f"{OF}releases/{{release}}/promote/{{environment}}/": (
        "POST /releases/{pk}/promote/",
        "GET /releases/{pk}/preview/",
    ),
    f"{OF}releases/{{release}}/roll-back/{{environment}}/": ("POST /releases/{pk}/roll-back/",),
    f"{OF}deliveries/{{delivery}}/redeliver/": ("POST /deliveries/{pk}/redeliver/",),
    "/hosts/": ("POST /hosts/",),
    "/hosts/{host}/check/": ("POST /hosts/{pk}/check/",),
    "/hosts/{host}/prepare/": ("POST /hosts/{pk}/prepare/",),
    "/hosts/{host}/accept-key/": ("POST /hosts/{pk}/accept-key/",),
    "/hosts/{host}/remove/": ("DELETE /hosts/{pk}/",),
    "/deployments/{pk}/approve/": ("POST /deployments/{pk}/approve/",),
    "/deployments/{pk}/cancel/": ("POST /deployments/{pk}/cancel/",),
    "/deployments/{pk}/reject/": ("POST /deployments/{pk}/reject/",),
    "/line/stop/": ("POST /stops/",),
    "/line/resume/": ("POST /stops/{pk}/resume/",),
    "/account/end-session/": ("DELETE /me/sessions/{name}/",),
    "/tokens/{pk}/revoke/": ("DELETE /tokens/{pk}/",),
}
# Signing in and out is of browsers; a program has a token.
OF_BROWSERS = {"/login/", "/logout/", "/set-password/{uidb64}/{token}/"}


def test_what_a_page_does_the_api_does_too() -> None:
    answered = _api()
    for page, asks in DOES.items():
        for ask in asks:
            method, path = ask.split(" ")
            assert (f"/api/v1{path}", method) in answered, (page, ask)


def test_each_page_that_is_posted_to_is_in_the_table() -> None:
    posted = {
        path
        for path, asks in MATRIX.items()
        if not path.startswith("/api/") and any(ask.method == "POST" for ask in asks)
    }
    assert posted - set(DOES) == set(), "Say which route of the API does the same."
    pages = {_renamed(route.path) for route in routes() if not route.of_api}
    assert (set(DOES) | OF_BROWSERS) - pages == set(), "There are no such pages."


def _api() -> set[tuple[str, str]]:
    """Each route with its methods, as its view has them."""
    found = set()
    for route in routes():
        view = route.view
        methods = getattr(view, "actions", None) or [
            name for name in ("get", "post", "put", "patch", "delete")
            if hasattr(getattr(view, "cls", None), name)
        ]  # fmt: skip
        found |= {(_renamed(route.path), method.upper()) for method in methods}
    return found
