"""``manage.py rotate_keys``: a new key for secrets at rest, and every secret sealed with it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from django.apps import apps
from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from ciserver.accounts.models import AuditEntry
from ciserver.lib.crypto import SealBroken, add_key, seal, unseal


class Command(BaseCommand):
    help = "Add a key to the key ring and seal every secret with it. The service may run."

    def handle(self, *args: Any, **options: Any) -> None:
        key_id = add_key()
        self.count, self.broken = 0, 0
        for model in _sealed():
            for pk in _keys(model):
                self._try(f"{model._meta.verbose_name} {pk}", partial(_reseal, model, pk))
        for model, column, place in _columns():
            for pk in model.objects.exclude(**{column: ""}).values_list("pk", flat=True):
                what = f"{model._meta.verbose_name} {pk}: {column}"
                self._try(what, partial(_reseal_column, model, pk, column, place))
        AuditEntry.record(
            actor="rotate_keys", action="keys.rotate", target=f"key {key_id}", broken=self.broken
        )
        self.stdout.write(f"Key {key_id} seals from now on; {self.count} secrets were sealed anew.")
        if self.broken:
            raise CommandError(
                f"{self.broken} secrets did not open and stay as they are. Enter them again."
            )

    def _try(self, what: str, reseal: Callable[[], int]) -> None:
        """One that does not open must not keep the others under the old key."""
        try:
            self.count += reseal()
        except (SealBroken, ValueError) as error:
            self.broken += 1
            self.stderr.write(f"{what}: {error}")


def _sealed() -> list[type[Any]]:
    """Every model whose rows hold one secret: those have ``sealed``, ``put`` and ``value``."""
    models = apps.get_models()  # those without ``put`` name the column in SEALED
    return [model for model in models if hasattr(model, "sealed") and hasattr(model, "put")]


def _columns() -> list[tuple[type[Any], str, str]]:
    """Model, column and the property that is its place, of those that name some in ``SEALED``."""
    return [
        (model, column, place)
        for model in apps.get_models()
        for column, place in getattr(model, "SEALED", {}).items()
    ]


def _keys(model: type[Any]) -> list[int]:
    """Of rows that may be removed before their turn comes."""
    return list(model.objects.exclude(sealed="").values_list("pk", flat=True))


@transaction.atomic
def _reseal(model: type[Any], pk: int) -> int:
    row = model.objects.select_for_update().filter(pk=pk).first()
    if row is None:
        return 0
    row.put(row.value())
    model.objects.filter(pk=pk).update(sealed=row.sealed)  # it was not changed by anyone
    return 1


def _reseal_column(model: type[Any], pk: int, column: str, place: str) -> int:
    row = model.objects.filter(pk=pk).first()
    if row is None:
        return 0
    before = getattr(row, column)
    again = seal(unseal(before, getattr(row, place)), getattr(row, place))
    # Not one that somebody replaced meanwhile.
    return int(model.objects.filter(pk=pk, **{column: before}).update(**{column: again}))
