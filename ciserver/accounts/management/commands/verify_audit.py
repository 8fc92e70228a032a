"""``manage.py verify_audit``: is the audit log what was written? Exit code 1 when it is not."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from ciserver.accounts.models import AuditCheck, AuditEntry


class Command(BaseCommand):
    help = "Check that no entry of the audit log was changed, removed or put in between."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--accept",
            action="store_true",
            help="entries at the end are missing and you know why, such as after a restore:"
            " let the hourly check begin anew from the log as it is",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if at := AuditEntry.broken_at():
            raise CommandError(
                f"The entry of {at:%Y-%m-%d %H:%M:%S} UTC does not fit the one before it:"
                " compare with a backup from before then."
            )
        if options["accept"]:
            AuditCheck.objects.all().delete()
        self.stdout.write(f"{AuditEntry.objects.count()} entries, all as they were written.")
