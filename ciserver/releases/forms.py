"""The forms of environments and hosts."""

from __future__ import annotations

from typing import Any

from django import forms

from ciserver.accounts.models import User
from ciserver.projects.models import Role
from ciserver.releases import policy
from ciserver.releases.environments import NUMBERS
from ciserver.releases.models import Environment
from ciserver.releases.targets.domains import MODES


class NewEnvironmentForm(forms.Form):
    """A place at the end of the chain, on this machine."""

    name = forms.CharField(
        label="Name",
        max_length=63,
        help_text="Such as qa, stage or prod. Lower-case letters, digits and “-”.",
        widget=forms.TextInput(attrs={"autocomplete": "off"}),
    )
    auto = forms.BooleanField(
        label="Deploy by itself",
        required=False,
        help_text="Every new release in the first place, else what ran well in the one before.",
    )


class NewHostForm(forms.Form):
    """Another machine. The service checks it; this only reads it."""

    name = forms.CharField(label="Name", max_length=63, help_text="Such as qa1.")
    address = forms.CharField(
        label="Address",
        max_length=300,
        help_text="USER@HOST or USER@HOST:PORT, as ssh takes it. Any user that may run podman or"
        " docker; root if none is given.",
        widget=forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false"}),
    )
    fingerprint = forms.CharField(
        label="Fingerprint of its host key",
        required=False,
        help_text="SHA256:… If it is left out, the key that is seen first is pinned.",
    )


def _words(text: str) -> list[str]:
    return text.replace(",", " ").split()


GROUPS = {
    "Where and how": (
        "hosts",
        "port",
        "domains",
        "https",
        "batch_size",
        "stop_on_failure",
        "variables",
    ),
    "What comes here": ("auto", "promote_role", "promoters", "soak_minutes"),
    "Approvals": ("approvals", "approvers", "approval_hours", "confirm_policy"),
    "Healthy is": ("health", "health_timeout", "health_passes", "stable_seconds"),
    "Each container may have": ("memory_mib", "cpus", "pids"),
}


class EnvironmentForm(forms.Form):
    """All that a maintainer may change. The service checks it; this only reads it."""

    auto = forms.BooleanField(label="Deploy by itself", required=False)
    variables = forms.CharField(
        label="Variables",
        required=False,
        strip=False,
        widget=forms.Textarea(attrs={"rows": 6, "spellcheck": "false"}),
        help_text="One NAME=value a line. Not for secrets: everybody in the project can read them.",
    )
    hosts = forms.CharField(label="Hosts", help_text="Names, with spaces between.")
    port = forms.IntegerField(
        label="Port", required=False, help_text="Where each host answers. It holds at once."
    )
    domains = forms.CharField(
        label="Domains",
        required=False,
        help_text="Host names that lead here, such as shop.example.org, with spaces between.",
    )
    https = forms.ChoiceField(
        label="HTTPS of these", choices=[(key, f"{key}: {words}") for key, words in MODES.items()]
    )
    promote_role = forms.TypedChoiceField(
        label="Who may promote", coerce=lambda value: Role(int(value)), choices=Role.choices[1:]
    )
    promoters = forms.CharField(
        label="Also these members", required=False, help_text="User names, with spaces between."
    )
    approvals = forms.IntegerField(label="Approvals that a promotion needs")
    approvers = forms.CharField(
        label="Who may approve",
        required=False,
        help_text="User names. Nobody approves what they asked for themselves.",
    )
    approval_hours = forms.IntegerField(label="Hours until it must be asked for again")
    soak_minutes = forms.IntegerField(label="Minutes that it must have run in the place before")
    confirm_policy = forms.BooleanField(
        label="Confirm what was lowered",
        required=False,
        help_text="Until another owner does, it does not hold for who lowered it: ",
    )
    health_timeout = forms.IntegerField(label="Seconds to become healthy in")
    health = forms.CharField(
        label="How to tell that it is healthy",
        required=False,
        max_length=300,
        help_text="http /PATH, tcp or exec COMMAND; empty for the image's own HEALTHCHECK.",
    )
    health_passes = forms.IntegerField(label="Times that it must pass in a row")
    stable_seconds = forms.IntegerField(label="Seconds that it must then stay up")
    batch_size = forms.IntegerField(label="Hosts that change at a time")
    stop_on_failure = forms.BooleanField(
        label="Leave the other hosts as they are when one fails", required=False
    )
    memory_mib = forms.IntegerField(label="Memory of each container, MiB")
    cpus = forms.FloatField(label="CPUs of each container")
    pids = forms.IntegerField(label="Processes of each container")

    def __init__(self, data: Any, *, environment: Environment, user: User) -> None:
        super().__init__(data, initial=_initial(environment))
        others = policy.kept_words(environment, but=user.username)
        if others and environment.project.allows(user, Role.OWNER):
            self.fields["confirm_policy"].help_text += "; ".join(others) + "."
        else:
            del self.fields["confirm_policy"]

    def clean_variables(self) -> dict[str, str]:
        found = {}
        for line in self.cleaned_data["variables"].splitlines():
            if not line.strip():
                continue
            name, equals, value = line.partition("=")
            if not equals:
                raise forms.ValidationError(f"“{line[:40]}” is not NAME=value.")
            found[name.strip()] = value
        return found

    @property
    def groups(self) -> list[tuple[str, list[forms.BoundField]]]:
        """What belongs together, with its heading."""
        return [
            (title, [self[name] for name in names if name in self.fields])
            for title, names in GROUPS.items()
        ]

    @property
    def wanted(self) -> dict[str, Any]:
        """The arguments of ``environments.change``."""
        lists = {
            name: _words(self.cleaned_data[name])
            for name in ("hosts", "domains", "promoters", "approvers")
        }
        given = self.cleaned_data | lists
        return {name: value for name, value in given.items() if (name, value) != ("port", None)}


def _initial(row: Environment) -> dict[str, Any]:
    plain = (*NUMBERS, "auto", "promote_role", "health", "https", "stop_on_failure")
    return {name: value for name in plain if (value := getattr(row, name)) is not None} | {
        "variables": "".join(f"{name}={value}\n" for name, value in row.variables.items()),
        "hosts": " ".join(row.hosts.values_list("name", flat=True)),
        "domains": " ".join(row.domains.values_list("name", flat=True)),
        "promoters": " ".join(row.promoters.values_list("username", flat=True)),
        "approvers": " ".join(row.approvers.values_list("username", flat=True)),
    }
