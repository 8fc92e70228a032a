"""The forms of accounts: signing in, passwords, tokens, users and teams."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django import forms
from django.contrib.auth.forms import AuthenticationForm
from django.http import HttpRequest

from ciserver.accounts import lock
from ciserver.accounts.models import Scope
from ciserver.lib.problems import Refused


class SignInForm(AuthenticationForm):
    """Name and password, behind the brute-force lock."""

    locked = False
    wrong_before = 0
    request: HttpRequest

    def clean(self) -> dict[str, Any]:
        name, password = self.cleaned_data.get("username"), self.cleaned_data.get("password")
        if not (name and password):
            return self.cleaned_data
        try:
            guess = lock.begin(name, lock.address_of(self.request))
        except Refused as refusal:
            self.locked = True
            raise forms.ValidationError(str(refusal)) from None
        try:
            super().clean()
        except forms.ValidationError:
            lock.failed(guess, through="page")
            raise
        self.wrong_before = lock.passed(guess)
        return self.cleaned_data

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

    project = forms.CharField(
        label="Only for project",
        max_length=63,
        required=False,
        help_text="Its name. Empty: all that you may see.",
        widget=forms.TextInput(attrs={"autocomplete": "off", "autocapitalize": "none"}),
    )

    @property
    def lifetime(self) -> timedelta | None:
        days = self.cleaned_data["days"]
        return timedelta(days=days) if days else None


def _password(label: str, *, autocomplete: str, help_text: str = "") -> forms.CharField:
    field = forms.PasswordInput(attrs={"autocomplete": autocomplete})
    return forms.CharField(label=label, strip=False, help_text=help_text, widget=field)


class PasswordForm(forms.Form):
    """One's own new password. The service looks whether it is a fit one."""

    old = _password("Present password", autocomplete="current-password")
    new = _password("New password", autocomplete="new-password", help_text="12 characters or more.")
    again = _password("New password again", autocomplete="new-password")

    def clean_again(self) -> str:
        again = str(self.cleaned_data["again"])
        if again != self.cleaned_data.get("new"):
            raise forms.ValidationError("This is not what you entered above.")
        return again


class UserForm(forms.Form):
    """A user to be."""

    username = forms.CharField(
        label="Name",
        max_length=63,
        widget=forms.TextInput(attrs={"autocomplete": "off", "autocapitalize": "none"}),
    )
    email = forms.CharField(
        label="Mail", max_length=254, required=False, help_text="Gantry sends none; for people."
    )
    admin = forms.BooleanField(
        label="Administrator",
        required=False,
        help_text="Sees and changes everything, in every project.",
    )


class TeamForm(forms.Form):
    """A team to be."""

    name = forms.CharField(
        label="Name",
        max_length=63,
        help_text="Lower-case letters, digits and “-”.",
        widget=forms.TextInput(attrs={"autocomplete": "off", "autocapitalize": "none"}),
    )
    description = forms.CharField(label="Description", max_length=200, required=False)
