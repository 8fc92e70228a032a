"""The brute-force lock: whoever guesses passwords has to wait.

A guess is counted before it is looked at, so that a thousand at once are not all looked at first.
Names are counted whether there is such a user or not: the lock tells nobody who has an account.
"""

from __future__ import annotations

import ipaddress
from datetime import timedelta

from django.db.models import Q
from django.http import HttpRequest
from django.utils import timezone

from ciserver.accounts.models import AuditEntry, SignInFailure
from ciserver.lib.problems import Refused

WINDOW = timedelta(minutes=15)
# Wrong passwords within WINDOW: one name from one place, any names from one place, and one name
# from anywhere. The last is high, since it lets others lock somebody out.
OF_BOTH, OF_ADDRESS, OF_NAME = 10, 50, 100


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


def passed(guess: SignInFailure) -> None:
    """It was right: what was wrong before it, from there, counts no more."""
    SignInFailure.objects.filter(username=guess.username, address=guess.address).delete()


def failed(guess: SignInFailure) -> None:
    """It was wrong; the one that locks is written into the audit log."""
    same = Q(username=guess.username, address=guess.address, at__gt=guess.at - WINDOW)
    if SignInFailure.objects.filter(same).count() == OF_BOTH:
        AuditEntry.record(
            actor="sign-in", action="account.lock", target=guess.username, address=guess.address
        )


def unlock(name: str) -> None:
    SignInFailure.objects.filter(username=name.lower()).delete()


def forget_old() -> None:
    """A chore."""
    SignInFailure.objects.filter(at__lt=timezone.now() - WINDOW).delete()
