"""``manage.py verify_audit``: is the audit log what was written? Exit code 1 when it is not."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from ciserver.accounts.models import AuditEntry


class Command(BaseCommand):
    help = "Check that no entry of the audit log was changed, removed or put in between."

    def handle(self, *args: Any, **options: Any) -> None:
        if at := AuditEntry.broken_at():
            raise CommandError(
                f"The entry of {at:%Y-%m-%d %H:%M:%S} UTC does not fit the one before it:"
                " compare with a backup from before then."
            )
        self.stdout.write(f"{AuditEntry.objects.count()} entries, all as they were written.")
