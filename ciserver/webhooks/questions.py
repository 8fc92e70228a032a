"""What every webhook asks the database, as SQL: Django would take longer to write each of these
statements than the database does to answer it.
"""

from __future__ import annotations

from django.db import connection

from ciserver.projects.models import Project
from ciserver.webhooks.models import Delivery, Verdict

# Reading the whole row would cost more than the delivery's commit.
PROJECT = """
SELECT id, slug, hook_secret_sealed, hook_secret_old_sealed, hook_secret_old_until
FROM projects_project WHERE slug = %s
"""
KNOWN = """
SELECT 1 FROM webhooks_delivery
WHERE project_id = %s AND forge = %s AND delivery_id = %s LIMIT 1
"""
LAST = f"""
SELECT 1 FROM webhooks_delivery
WHERE project_id = %s AND ref = %s AND kind = %s
AND verdict = '{Verdict.ACCEPTED.value}' AND NOT superseded LIMIT 1
"""  # noqa: S608 - a word of our own, written out so that the partial index is used


def project_of(slug: str) -> Project | None:
    """With its webhook secrets; all else is read when it is asked for."""
    return next(iter(Project.objects.raw(PROJECT, [slug])), None)


def is_known(delivery: Delivery) -> bool:
    """Whether one of its id is recorded."""
    return _any(KNOWN, delivery.project_id, delivery.forge, delivery.delivery_id)


def has_last(delivery: Delivery) -> bool:
    """Whether there is a last word on its ref."""
    return _any(LAST, delivery.project_id, delivery.ref, delivery.kind)


def _any(statement: str, *values: str | int) -> bool:
    with connection.cursor() as cursor:
        cursor.execute(statement, values)
        return cursor.fetchone() is not None
