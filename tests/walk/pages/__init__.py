"""What is typed where: one row per page, in the order in which they are followed."""

from __future__ import annotations

from tests.walk.pages import (
    building,
    ending,
    first_project,
    hosts,
    install,
    operations,
    people,
    pipelines,
    projects,
    promotion,
    readme,
    settings,
)
from tests.walk.walking import Page

# docs/promotion.md has the approver whom docs/people.md names; docs/hosts.md moves what runs then.
IN_USE: list[Page] = [
    readme.PAGE,
    first_project.PAGE,
    projects.CLI,
    people.PAGE,
    promotion.PAGE,
    hosts.HOSTS,
    hosts.DAY_TWO,
    projects.REPOSITORIES,
    projects.SECRETS,
    projects.REGISTRY,
    projects.API,
    projects.SECURITY,
    projects.MONITORING,
    ending.PAGE,
    building.GANTRY_YML,
    building.BUILDS,
    pipelines.STARTING,
    pipelines.TESTS,
    pipelines.WEBHOOKS,
    settings.CLIENT,
]
# At last what stops the service, moves it elsewhere, and takes it away.
AT_THE_END: list[Page] = [
    operations.PAGE,
    install.RUNNING,
    settings.POSTGRESQL,
    settings.OF_OPERATIONS,
    install.REMOVING,
]
