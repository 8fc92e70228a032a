"""The sign-in form."""

from __future__ import annotations

from django.contrib.auth.forms import AuthenticationForm


class SignInForm(AuthenticationForm):
    error_messages = {
        "invalid_login": "This name and password do not belong together. Capitals matter in both.",
        "inactive": "This account is switched off. Ask an administrator.",
    }
