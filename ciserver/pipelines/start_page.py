"""The page on which a person starts a pipeline, with the inputs that its branch's file has."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render

from ciserver.lib.problems import Refused
from ciserver.pipelines.models import Event
from ciserver.pipelines.starting import Head, head_of, role_to_start, start
from ciserver.pipelines.starts import Input
from ciserver.projects.models import Project

PREFIX = "input-"


@login_required
def page(request: HttpRequest, slug: str) -> HttpResponse:
    """``?ref=NAME`` shows the inputs of another branch or tag."""
    project = get_object_or_404(Project.objects.visible_to(request.user), slug=slug)
    name = (request.POST if request.method == "POST" else request.GET).get("ref", "").strip()
    context: dict[str, Any] = {
        "project": project,
        "ref": name or project.default_branch,
        "schedules": project.schedules.select_related("pipeline"),
    }
    try:
        head = head_of(project, name)
    except Refused as refusal:
        return render(request, "pipelines/start.html", context | {"refusal": refusal}, status=400)
    form = InputsForm(head, request.POST if request.method == "POST" else None)
    if request.method == "POST" and form.is_valid():
        try:
            pipeline = start(
                project=project,
                user=request.user,
                ref=head.ref,
                inputs=form.given,
                event=Event.MANUAL,
            )
        except Refused as refusal:
            told = {"refusal": refusal, "back": request.path}
            return render(request, "refused.html", told, status=refusal.status)
        return redirect(pipeline)
    role = role_to_start(project, head.ref)
    context |= {"form": form, "head": head, "role": role}
    context["may_start"] = project.allows(request.user, role)
    status = 400 if form.errors else 200
    return render(request, "pipelines/start.html", context, status=status)


class InputsForm(forms.Form):
    """A field for each input of ``gantry.yml`` at ``head``."""

    def __init__(self, head: Head, data: Any) -> None:
        super().__init__(data)
        self._inputs = head.definition.inputs
        for name, wanted in self._inputs.items():
            self.fields[PREFIX + name] = _field(name, wanted)

    @property
    def given(self) -> dict[str, str]:
        """What was filled in; of the others their default counts."""
        values = {name: self.cleaned_data.get(PREFIX + name) for name in self._inputs}
        return {
            name: str(value).lower() if isinstance(value, bool) else str(value)
            for name, value in values.items()
            if value not in (None, "")
        }

    def clean(self) -> dict[str, Any]:
        for name, wanted in self._inputs.items():
            value = self.cleaned_data.get(PREFIX + name)
            if isinstance(value, str) and value:
                try:
                    wanted.read(value)
                except ValueError as error:
                    self.add_error(PREFIX + name, f"{error}.".capitalize())
        return self.cleaned_data


def _field(name: str, wanted: Input) -> forms.Field:
    common: dict[str, Any] = {
        "label": name.replace("_", " ").capitalize(),
        "help_text": wanted.description,
        "initial": wanted.default,
        "required": wanted.required and wanted.type != "boolean",
    }
    if wanted.type == "boolean":
        common["initial"] = wanted.default is not None and wanted.read(wanted.default) == "true"
        return forms.BooleanField(**common)
    if wanted.type == "choice":
        empty = [] if wanted.default is not None or wanted.required else [("", "-")]
        return forms.ChoiceField(choices=[*empty, *((it, it) for it in wanted.options)], **common)
    return forms.CharField(
        strip=False, widget=forms.TextInput(attrs={"autocomplete": "off"}), **common
    )
