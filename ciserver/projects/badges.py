"""The address of a project's badge, which whoever has it may see."""

from __future__ import annotations

from django.urls import reverse
from django.utils.crypto import salted_hmac

from ciserver.projects.models import Project


def badge_path(project: Project) -> str:
    """The address, with the part that cannot be guessed."""
    return reverse("badge", args=[project.slug, key_of(project)])


def key_of(project: Project) -> str:
    """80 bits that nobody guesses. Of the row, not of its name: another project that is given the
    name one day shows nothing to who kept the address."""
    return salted_hmac("gantry.badge", str(project.pk)).hexdigest()[:20]
