"""``manage.py rotate_keys``: a new key for secrets at rest, and every secret sealed with it."""

from __future__ import annotations

from typing import Any

from django.apps import apps
from django.core.management.base import BaseCommand
from django.db import transaction

from ciserver.accounts.models import AuditEntry
from ciserver.lib.crypto import add_key, seal, unseal
from ciserver.projects.models import Project


class Command(BaseCommand):
    help = "Add a key to the key ring and seal every secret with it. The service may run."

    def handle(self, *args: Any, **options: Any) -> None:
        key_id = add_key()
        count = sum(_reseal(model, pk) for model in _sealed() for pk in _keys(model))
        count += sum(map(_reseal_hook, Project.objects.exclude(hook_secret_sealed="")))
        AuditEntry.record(actor="rotate_keys", action="keys.rotate", target=f"key {key_id}")
        self.stdout.write(f"Key {key_id} seals from now on; {count} secrets were sealed anew.")


def _sealed() -> list[type[Any]]:
    """Every model whose rows hold one secret: those have ``sealed``, ``put`` and ``value``."""
    return [model for model in apps.get_models() if hasattr(model, "sealed")]


def _keys(model: type[Any]) -> list[int]:
    return list(model.objects.exclude(sealed="").values_list("pk", flat=True))


@transaction.atomic
def _reseal(model: type[Any], pk: int) -> int:
    row = model.objects.select_for_update().get(pk=pk)
    row.put(row.value())
    model.objects.filter(pk=pk).update(sealed=row.sealed)  # it was not changed by anyone
    return 1


def _reseal_hook(project: Project) -> int:
    """Both webhook secrets, for the one before still counts while people replace it."""
    new, before = project.hook_secret_sealed, project.hook_secret_old_sealed
    # Not one that somebody replaced meanwhile.
    rows = Project.objects.filter(
        pk=project.pk, hook_secret_sealed=new, hook_secret_old_sealed=before
    )
    changed = rows.update(
        hook_secret_sealed=_again(new, project.hook_secret_place),
        hook_secret_old_sealed=_again(before, project.hook_secret_old_place),
    )
    return changed * (2 if before else 1)


def _again(sealed: str, place: str) -> str:
    return seal(unseal(sealed, place), place) if sealed else ""
