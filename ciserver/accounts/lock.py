"""The brute-force lock: whoever guesses passwords has to wait.

A guess is counted before it is looked at, so that a thousand at once are not all looked at first.
Names are counted whether there is such a user or not: the lock tells nobody who has an account.
"""

from __future__ import annotations

import ipaddress
from datetime import timedelta

from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone

from ciserver.accounts.models import AuditEntry, SignInFailure, User
from ciserver.lib.problems import Refused

WINDOW = timedelta(minutes=15)
# Wrong passwords within WINDOW: one name from one place, any names from one place, and one name
# from anywhere. The last is high, since it lets others lock somebody out.
OF_BOTH, OF_ADDRESS, OF_NAME = 10, 50, 100
# What the audit log is told of within WINDOW: names from one place, passwords from anywhere.
TOLD_OF_ADDRESS, TOLD = 10, 200
# What stands there for a name that nobody has: people type passwords where the name belongs.
UNKNOWN, MANY = "(unknown)", "(many)"


def address_of(request: HttpRequest) -> str:
    """Whose guesses are counted together: see ``network_of``."""
    return network_of(request.META.get("REMOTE_ADDR", ""))


def network_of(text: str) -> str:
    """An IPv4 address, or the /64 that one IPv6 line gets; empty for anything else."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return ""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, 64), strict=False).network_address)
    return str(address)


def begin(name: str, address: str) -> SignInFailure:
    """Count a guess that is about to be looked at. Raises Refused when there were too many."""
    name = name.lower()[:150]
    recent = SignInFailure.objects.filter(at__gt=timezone.now() - WINDOW)
    counted = (
        (recent.filter(username=name, address=address), OF_BOTH),
        (recent.filter(address=address), OF_ADDRESS),
        (recent.filter(username=name), OF_NAME),
    )
    for rows, most in counted:
        times = list(rows.order_by("-at").values_list("at", flat=True)[:most])
        if len(times) == most:
            left = times[-1] + WINDOW - timezone.now()
            minutes = max(1, -(-int(left.total_seconds()) // 60))
            raise Refused(
                "There were too many wrong passwords.",
                code="account.locked",
                hint=f"Try again in {minutes} min, or ask an administrator for a new link.",
                status=429,
            )
    return SignInFailure.objects.create(username=name, address=address)


def passed(guess: SignInFailure) -> int:
    """It was right: what was wrong before it, from there, counts no more. How many that were."""
    same = SignInFailure.objects.filter(username=guess.username, address=guess.address)
    return same.delete()[0] - 1


def failed(guess: SignInFailure, *, through: str) -> None:
    """It was wrong. The audit log is told of the first of a name and address, and of the one that
    locks. Names that nobody has are told as often as others: time tells nobody which they are."""
    until = SignInFailure.objects.filter(at__gt=guess.at - WINDOW, pk__lte=guess.pk)
    from_there = until.filter(address=guess.address)
    of_both = from_there.filter(username=guess.username).count()
    known = User.objects.filter(username__iexact=guess.username).first()
    target = known.username if known else UNKNOWN
    in_all = until[: TOLD + 1].count()
    if of_both == OF_BOTH and (known or in_all < TOLD):
        _tell("account.lock", target, address=guess.address)
    elif in_all == TOLD:
        note = f"{TOLD} within 15 min; until there are fewer, no others are written down"
        _tell("account.sign-in-failed", MANY, note=note)
    elif of_both == 1 and in_all < TOLD and _names(from_there) <= TOLD_OF_ADDRESS:
        _tell("account.sign-in-failed", target, address=guess.address, through=through)


def _names(rows: QuerySet[SignInFailure]) -> int:
    return rows.values("username").distinct().count()


def _tell(action: str, target: str, **detail: str) -> None:
    AuditEntry.record(actor="sign-in", action=action, target=target, **detail)


def unlock(name: str) -> None:
    SignInFailure.objects.filter(username=name.lower()).delete()


def forget_old() -> None:
    """A chore."""
    SignInFailure.objects.filter(at__lt=timezone.now() - WINDOW).delete()
