"""The form of a repository's rules."""

from __future__ import annotations

from typing import Any

from django import forms

from ciserver.projects.models import Project, Role
from ciserver.repositories.rules import MOST_MIB, MOST_REFS

PUSHERS = [(role.value, role.label) for role in Role if role >= Role.DEVELOPER]


class Patterns(forms.CharField):
    """A pattern in each line; a list of them in Python."""

    def __init__(self, **options: Any) -> None:
        widget = forms.Textarea(attrs={"rows": 3, "spellcheck": "false", "autocomplete": "off"})
        super().__init__(required=False, widget=widget, max_length=10_000, **options)

    def prepare_value(self, value: Any) -> Any:
        return "\n".join(value) if isinstance(value, list) else value

    def clean(self, value: Any) -> list[str]:
        return str(super().clean(value)).split()


class RulesForm(forms.Form):
    """The service refuses what cannot be used."""

    clone_url = forms.CharField(
        label="Address",
        max_length=500,
        help_text="https:// or ssh://. Another server is not given the login of this one.",
    )
    default_branch = forms.CharField(
        label="Default branch", max_length=200, help_text="Always protected."
    )
    protected_branches = Patterns(
        label="Protected branches",
        help_text="One pattern in a line, such as release/*. Nobody deletes or force-pushes these,"
        " and only their pipelines write the trusted cache.",
    )
    protected_tags = Patterns(
        label="Protected tags", help_text="Such as v*. Nobody moves or deletes these."
    )
    push_role = forms.TypedChoiceField(
        label="Who may push to protected ones, and start their pipelines",
        choices=PUSHERS,
        coerce=int,
    )
    max_push_mib = forms.IntegerField(label="Most MiB of one push", min_value=1, max_value=MOST_MIB)
    max_push_refs = forms.IntegerField(
        label="Most refs of one push", min_value=1, max_value=MOST_REFS
    )

    @classmethod
    def of(cls, project: Project, data: Any = None) -> RulesForm:
        """The project's rules, or ``data`` that was posted. Limits are of hosted ones alone."""
        form = cls(data, initial={name: getattr(project, name) for name in cls.base_fields})
        if project.hosted:
            del form.fields["clone_url"]
        else:
            form.fields["push_role"].label = "Who may start pipelines of protected ones"
            for name in ("max_push_mib", "max_push_refs"):
                del form.fields[name]
        return form
