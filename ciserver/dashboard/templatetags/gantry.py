"""What every template may use: containers, states, icons, times and sizes."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django import template
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString, mark_safe

from ciserver.dashboard import images, marks
from ciserver.dashboard.models import ImageUse
from ciserver.lib import words
from ciserver.pipelines.models import Pipeline
from ciserver.projects.models import Project, Role

register = template.Library()

register.simple_tag(marks.container, name="container")
register.simple_tag(marks.chip, name="chip")
register.simple_tag(marks.slot, name="slot")
register.filter("duration", words.duration)
register.filter("size", words.size)

_RING = '<circle class="ring" cx="8" cy="8" r="6.25"/>'
_DISC = '<circle class="disc" cx="8" cy="8" r="7"/>'
_STATES = {
    "passed": _DISC + '<path class="on" d="M4.8 8.3 7 10.5l4.2-4.8"/>',
    "failed": _DISC + '<path class="on" d="m5.5 5.5 5 5m0-5-5 5"/>',
    "running": _RING + '<path class="arc" d="M8 1.75A6.25 6.25 0 0 1 14.25 8"/>',
    "queued": '<circle class="ring dashed" cx="8" cy="8" r="6.25"/>',
    "cancelled": _RING + '<path class="line" d="m4 12 8-8"/>',
    "skipped": _RING + '<path class="line" d="M5 8h6"/>',
    "cached": _RING,
    "healthy": '<circle class="disc" cx="8" cy="8" r="4"/>',
    "unhealthy": '<path class="disc" d="M8 3.2 13 12H3z"/>',
}
# Deployments and test cases have words of their own for the same look.
_LOOKS = {"succeeded": "passed", "superseded": "cancelled", "error": "failed"}

_ICONS = {
    "copy": '<rect x="5.5" y="5.5" width="8" height="8" rx="1.5"/>'
    '<path d="M10.5 5.5v-2a1 1 0 0 0-1-1h-6a1 1 0 0 0-1 1v6a1 1 0 0 0 1 1h2"/>',
    "branch": '<circle cx="4.5" cy="3.5" r="1.75"/><circle cx="4.5" cy="12.5" r="1.75"/>'
    '<circle cx="11.5" cy="5.5" r="1.75"/><path d="M4.5 5.25v5.5M11.5 7.25c0 2-7 1.5-7 3.5"/>',
    "person": '<circle cx="8" cy="5" r="2.75"/>'
    '<path d="M2.5 14c.5-3 2.5-4.5 5.5-4.5s5 1.5 5.5 4.5"/>',
    "right": '<path d="M3 8h10M9 4l4 4-4 4"/>',
    "back": '<path d="M6 3 2.5 6.5 6 10M2.5 6.5H10a3.5 3.5 0 0 1 0 7H7"/>',
    "search": '<circle cx="7" cy="7" r="4.25"/><path d="m10.2 10.2 3.3 3.3"/>',
    "project": '<rect x="1.75" y="4.5" width="12.5" height="7" rx="1"/>'
    '<path d="M5 4.5v7M8 4.5v7M11 4.5v7"/>',
    "environment": '<path d="M3 14V2.5M3 3h9.5l-2.25 2.75L12.5 8.5H3"/>',
    "host": '<rect x="2.5" y="2.5" width="11" height="4.5" rx="1"/>'
    '<rect x="2.5" y="9" width="11" height="4.5" rx="1"/><path d="M5 4.75h.01M5 11.25h.01"/>',
    "theme": '<circle cx="8" cy="8" r="6.25"/>'
    '<path class="solid" d="M8 1.75a6.25 6.25 0 0 1 0 12.5z"/>',
}


@register.simple_tag
def state_icon(state: str, label: str = "") -> SafeString:
    """The sign of a state. Without ``label`` it is decoration beside its own word."""
    look = _LOOKS.get(state, state)
    known = look if look in _STATES else "queued"
    name = format_html('role="img" aria-label="{}"', label) if label else 'aria-hidden="true"'
    return format_html(
        '<svg class="state is-{}" viewBox="0 0 16 16" width="16" height="16" {}>{}</svg>',
        known,
        mark_safe(name),  # noqa: S308 - escaped above, or a constant
        mark_safe(_STATES[known]),  # noqa: S308 - a constant
    )


@register.simple_tag
def icon(name: str) -> SafeString:
    return format_html(
        '<svg class="icon" viewBox="0 0 16 16" width="16" height="16" aria-hidden="true">{}</svg>',
        mark_safe(_ICONS[name]),  # noqa: S308 - a constant
    )


@register.simple_tag
def ago(then: datetime | None) -> SafeString:
    """How long ago, which ``app.js`` keeps right while the page is open."""
    if then is None:
        return format_html("<span>{}</span>", words.ago(None))
    return format_html(
        '<time class="ago" datetime="{}" title="{} UTC">{}</time>',
        then.isoformat(),
        f"{then:%Y-%m-%d %H:%M:%S}",
        words.ago(then),
    )


@register.simple_tag
def lasting(row: object) -> SafeString:
    """The duration of a row with ``started_at`` and ``finished_at``, counting while it runs."""
    started = getattr(row, "started_at", None)
    if started is None:
        return format_html('<span class="lasting">{}</span>', words.NOTHING)
    seconds = words.duration(getattr(row, "seconds", None))
    if getattr(row, "finished_at", None) is None and getattr(row, "state", "") == "running":
        return format_html(
            '<span class="lasting" data-since="{}">{}</span>', started.isoformat(), seconds
        )
    return format_html('<span class="lasting">{}</span>', seconds)


@register.filter
def short(digest: str) -> str:
    """The first twelve hexadecimal digits of a digest or commit."""
    return digest.rpartition(":")[2][:12]


@register.filter
def look(state: str) -> str:
    """The word of the stylesheet for a state of any row."""
    return _LOOKS.get(state, state)


@register.filter
def at(mapping: object, key: object) -> object:
    """``mapping[key]``, or nothing where either is missing."""
    return mapping.get(key) if isinstance(mapping, dict) else None


@register.filter
def with_code(text: str) -> SafeString:
    """What stands between backticks is code."""
    parts = enumerate(text.split("`"))
    return format_html_join("", "{}", ((_code(part) if at % 2 else part,) for at, part in parts))


def _code(text: str) -> SafeString:
    return format_html("<code>{}</code>", text)


@register.filter
def maintained_by(project: Project, user: Any) -> bool:
    return project.allows(user, Role.MAINTAINER)


@register.simple_tag
def colour(digest: str) -> str:
    """The class of the colour that stands for ``digest``."""
    return f"c{marks.mark_of(digest).colour}"


@register.simple_tag
def size_of(count: int) -> str:
    """Bytes with their sign: what shrank has a minus."""
    return words.size(count) if count >= 0 else f"\u2212{words.size(-count)}"


@register.simple_tag(takes_context=True)
def layer_map(context: dict[str, Any], pipeline: Pipeline) -> images.LayerMap | None:
    """The layer map of the image that a pipeline pushed, once it was read."""
    rows = ImageUse.objects.select_related("image", "pipeline").filter(name="", image__trouble="")
    use = rows.filter(pipeline=pipeline).first() if pipeline.digest else None
    return images.map_of(use, context["user"]) if use else None


@register.simple_tag
def gauge_text(gauge: Any) -> str:
    """``48 MiB of 2.0 GiB``."""
    show = {"size": words.size, "duration": words.duration, "cores": "{:.2g}".format}[gauge.kind]
    if gauge.limit is None:
        return show(gauge.value)
    limit = show(gauge.limit).removesuffix(" 00 s").removesuffix(" 00 min")
    return f"{show(gauge.value)} of {limit}"
