"""Forms of a project's settings."""

from __future__ import annotations

from django import forms

from ciserver.projects.models import MOST_AT_ONCE, Role


class BuildingForm(forms.Form):
    """What a project is said to be, and how its pipelines are queued."""

    description = forms.CharField(label="Description", max_length=200, required=False)
    cancel_superseded = forms.BooleanField(
        label="End a branch's earlier pipelines when a newer commit comes",
        required=False,
        help_text="They are shown as cancelled, with the number of the pipeline that came instead.",
    )
    concurrency = forms.IntegerField(
        label="Pipelines at once",
        min_value=0,
        max_value=MOST_AT_ONCE,
        initial=0,
        help_text="0: as many as there are workers. Projects take turns either way.",
    )


class MemberForm(forms.Form):
    """A role for a person or a team. Who has one already gets another."""

    kind = forms.ChoiceField(label="Who", choices=[("person", "a person"), ("team", "a team")])
    name = forms.CharField(
        label="Name",
        max_length=150,
        help_text="As the user or the team is called, exactly.",
        widget=forms.TextInput(attrs={"autocomplete": "off", "autocapitalize": "none"}),
    )
    role = forms.TypedChoiceField(
        label="Role",
        coerce=int,
        choices=[
            (Role.VIEWER.value, "viewer: sees everything"),
            (Role.DEVELOPER.value, "developer: also pushes, starts and cancels"),
            (Role.MAINTAINER.value, "maintainer: also promotes and changes settings"),
            (Role.OWNER.value, "owner: also decides who is a member"),
        ],
        initial=Role.DEVELOPER.value,
    )


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
