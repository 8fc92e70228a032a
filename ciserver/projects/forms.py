"""Forms of a project's settings."""

from __future__ import annotations

from django import forms


class SecretForm(forms.Form):
    """A name and a value. The service refuses what cannot be used."""

    name = forms.CharField(
        label="Name",
        max_length=100,
        help_text="Letters, digits and “_”. A name that is there already gets the new value.",
        widget=forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false"}),
    )
    value = forms.CharField(
        label="Value",
        strip=False,
        help_text="It is not shown again, and is masked in logs.",
        widget=forms.Textarea(attrs={"rows": 3, "autocomplete": "off", "spellcheck": "false"}),
    )
