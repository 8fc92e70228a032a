"""Forms of the dashboard."""

from __future__ import annotations

from django import forms


class ProjectForm(forms.Form):
    """What a new project needs. The service refuses names that cannot be used."""

    slug = forms.CharField(
        label="Name",
        max_length=63,
        help_text="Lower-case letters, digits and “-”. It becomes part of addresses.",
        widget=forms.TextInput(attrs={"autofocus": True, "autocomplete": "off"}),
    )
    description = forms.CharField(label="Description", max_length=200, required=False)
    clone_url = forms.CharField(
        label="Repository",
        max_length=500,
        required=False,
        help_text="Its https:// or ssh:// address at your forge. Leave it empty to push here.",
    )
