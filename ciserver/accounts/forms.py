"""The forms of signing in and of tokens."""

from __future__ import annotations

from datetime import timedelta

from django import forms
from django.contrib.auth.forms import AuthenticationForm

from ciserver.accounts.models import Scope


class SignInForm(AuthenticationForm):
    error_messages = {
        "invalid_login": "This name and password do not belong together. Capitals matter in both.",
        "inactive": "This account is switched off. Ask an administrator.",
    }


class TokenForm(forms.Form):
    """A token to be: for what, how long, how much it may do."""

    name = forms.CharField(
        label="Name",
        max_length=80,
        help_text="What it is for, such as “laptop” or “deploy script”.",
        widget=forms.TextInput(attrs={"autocomplete": "off"}),
    )
    scope = forms.ChoiceField(
        label="It may",
        choices=[(scope.value, scope.label) for scope in Scope],
        initial=Scope.WRITE.value,
    )
    days = forms.TypedChoiceField(
        label="It ends",
        coerce=int,
        choices=[(30, "in 30 days"), (90, "in 90 days"), (365, "in a year"), (0, "never")],
        initial=90,
    )

    @property
    def lifetime(self) -> timedelta | None:
        days = self.cleaned_data["days"]
        return timedelta(days=days) if days else None
