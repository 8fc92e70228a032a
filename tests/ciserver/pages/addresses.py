"""Every page, by who looks at it: what tests of all pages go through.

Names in braces are of rows that ``scenes.rarities`` makes. ``test_every_page`` holds the list to
the service's own addresses.
"""

from __future__ import annotations

from tests.ciserver.pages.seeding import digest_of

IMAGE = f"/projects/hello/images/{digest_of('hello3')}/"
OF_NOBODY = ["/login/", "{set_password}", "/set-password/none/none/", "/api/docs/"]
OF_MEMBERS = [
    "/",
    "/projects/hello/",
    "/projects/wiki/",
    "/projects/hello/pipelines/",
    "/projects/hello/pipelines/?branch=nowhere",
    "/projects/wiki/pipelines/",
    "/projects/hello/releases/",
    "/projects/hello/environments/qa/deployments/",
    "/tokens/",
    "/new-project/",
    "/projects/hello/pipelines/6/",
    "/projects/hello/pipelines/5/?job=build",
    "/projects/hello/releases/3/",
    "/projects/hello/releases/5/promote/prod/",
    "/projects/hello/environments/prod/",
    "/projects/hello/environments/prod/edit/",
    "/projects/hello/new-environment/",
    "/projects/hello/environments/prod/remove/",
    "/projects/hello/archive/",
    "/projects/shed/",
    "/projects/shed/archive/",
    "/?show=archived",
    "/projects/hello/audit/",
    "/projects/hello/tests/",
    "/projects/quay/start/",
    "/projects/hello/deliveries/",
    "/projects/hello/repository/",
    "/projects/hello/secrets/",
    "/projects/hello/building/",
    "/projects/hello/members/",
    "/account/",
    "/projects/hello/statuses/",
    "/projects/hello/environments/prod/secrets/",
    "/hosts/",
    "/search/?q=hello",
    "/registry/",
    "/registry/?q=team",
    "/projects/hello/images/",
    IMAGE,
    f"/projects/hello/images/compare/?old={digest_of('hello2')}&new={digest_of('hello5')}",
    "/hosts/local/",
    "/projects/hello/pipelines/6/jobs/2/lines",
    "/projects/hello/webhooks/",
    "/projects/hello/deliveries/1/",
    "/projects/hello/pipelines/next/",
    "/projects/hello/pipelines/5/coverage/",
    "/projects/hello/pipelines/6/jobs/2/lines?q=failed",
    "/projects/hello/tests/?name=test_greets_by_name&suite=tests.test_greeting",
    "/projects/hello/releases/2/roll-back/prod/",
    "/projects/hello/environments/prod/containers/restart/?host=local",
    "/projects/search/pipelines/1/",
    "/deployments/{waiting}/approve/",
    "/deployments/{waiting}/cancel/",
    "/commands/{command}/",
    "/api/docs/?q=promote",
    "/api/docs/projects/",
    "/api/docs/releases/",
    "/no/such/page/",
]
OF_NEWCOMERS = ["/", "/registry/", "/hosts/"]
OF_ADMINISTRATORS = [
    "/users/",
    "/users/alice/",
    "/teams/",
    "/teams/crew/",
    "/audit/",
    "/hosts/",
    "/hosts/local/",
]
PAGES = [
    *(("", path) for path in OF_NOBODY),
    *(("alice", path) for path in OF_MEMBERS),
    *(("newcomer", path) for path in OF_NEWCOMERS),
    *(("root", path) for path in OF_ADMINISTRATORS),
]
# What is drawn when something went wrong: ``scenes.drawn`` makes it, as the service would.
WHEN_WRONG = ["400.html", "403.html", "403_csrf.html", "500.html", "503.html", "refused.html"]

# Routes that are asked for with GET and are no page.
NO_PAGE = {
    "/api/schema/": "a document; its page is /api/docs/",
    "/healthz": "text",
    "/readyz": "text",
    "/metrics": "text for Prometheus",
    "/cctray.xml": "XML",
    "/projects/{slug}/badge/{key}.svg": "an image",
    "/projects/{slug}/pipelines/{number}/events": "a stream",
    "/projects/{slug}/pipelines/next/events": "a stream",
    "/projects/{slug}/pipelines/{number}/jobs/{job}/log": "a part of the pipeline's page",
    "/projects/{slug}/pipelines/{number}/artifacts/{artifact}": "a file",
}
