"""``manage.py bootstrap``: the first administrator and a token, printed as JSON."""

from __future__ import annotations

import json
import secrets
from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandParser
from django.db import transaction

from ciserver.accounts.models import AuditEntry, Scope, Token, User


class Command(BaseCommand):
    requires_system_checks = ()  # they load every page: see ciserver.celery
    help = (
        "Make the administrator and a token for the command line, and print them as JSON."
        " An administrator that exists keeps the password, which is then null,"
        " unless --new-password asks for another."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--username", default="admin")
        parser.add_argument("--token-name", default="gantry command line")
        parser.add_argument("--token-days", type=int, default=30)
        parser.add_argument("--new-password", action="store_true")

    @transaction.atomic
    def handle(self, *args: Any, **options: Any) -> None:
        name = options["username"]
        user, created = User.objects.get_or_create(
            username=name, defaults={"is_staff": True, "is_superuser": True}
        )
        password = None
        if created or options["new_password"]:
            password = secrets.token_urlsafe(12)
            user.set_password(password)
            user.save()
        # A token's text is not kept, so each call makes a new one in the place of its last.
        user.tokens.filter(name=options["token_name"]).delete()
        _, token = Token.make(
            user=user,
            name=options["token_name"],
            scope=Scope.WRITE,
            lifetime=timedelta(days=options["token_days"]),
        )
        AuditEntry.record(actor="console", action="bootstrap", target=name)
        self.stdout.write(json.dumps({"username": name, "password": password, "token": token}))
