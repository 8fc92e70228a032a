"""The form of where commit statuses go."""

from __future__ import annotations

from django import forms

from ciserver.notifications.forges import FORGES


class TargetForm(forms.Form):
    """The service refuses what cannot be used."""

    forge = forms.ChoiceField(label="Forge", choices=[(name, name) for name in FORGES])
    repository = forms.CharField(
        label="Repository", max_length=300, help_text="As the forge names it: OWNER/NAME."
    )
    api_url = forms.CharField(
        label="API address",
        max_length=300,
        required=False,
        help_text="Of an instance of your own, such as https://git.example/api/v1.",
    )
    token = forms.CharField(
        label="Token",
        max_length=1000,
        help_text="It may do nothing but set commit statuses. It is not shown again.",
        widget=forms.PasswordInput(attrs={"autocomplete": "off"}),
    )
