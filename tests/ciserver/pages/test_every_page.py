"""What holds for every page is asked of every page: the list of them is complete."""

from __future__ import annotations

import re

from django.contrib.auth.models import AbstractBaseUser
from django.test import Client
from django.urls import resolve

from tests.ciserver.access.matrix import MATRIX, OTHERWISE
from tests.ciserver.access.routes import of_resolver
from tests.ciserver.access.test_matrix import _renamed
from tests.ciserver.pages.addresses import NO_PAGE, PAGES

ANY = {"set_password": "/set-password/x/y/", "waiting": 1, "command": 1}


def test_every_route_that_is_looked_at_is_listed_as_a_page_or_says_why_not(
    admin_user: AbstractBaseUser,
) -> None:
    client = Client()
    client.force_login(admin_user)
    looked_at = {path for path, asks in MATRIX.items() if any(ask.method == "GET" for ask in asks)}
    pages = [path for path in OTHERWISE if not path.startswith("/api/")]
    looked_at |= {path for path in pages if client.get(_any(path)).status_code != 405}
    listed = {
        _renamed(of_resolver(resolve(path.format(**ANY).partition("?")[0]).route))
        for _, path in PAGES
        if path != "/no/such/page/"
    }
    asked = {path for path in looked_at if not path.startswith("/api/v1/")}
    assert sorted(asked - listed - set(NO_PAGE)) == [], "Add it to tests/.../pages/addresses.py."
    assert sorted(set(NO_PAGE) - asked) == [], "These rows are of no route."


def _any(path: str) -> str:
    """An address of this shape, of rows that are not there."""
    numbers = re.sub(r"{(pk|number)}", "999999", path)
    return re.sub(r"{\w+}", "x", numbers)
