"""Writes down what a pipeline pushed: once for each digest, from the registry.

A worker's task. What was written before, by whichever pipeline, is not read again: of a new image
mostly its own few layers are fetched, never its base.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import httpx
from django.db import transaction
from django.utils import timezone

from ciserver.dashboard import listing
from ciserver.dashboard.models import ImageLabel, ImageLayer, ImageRecord, ImageUse, LayerRecord
from ciserver.lib import outbox
from ciserver.pipelines.models import Pipeline
from ciserver.releases.preview import token_for
from ciserver.releases.targets.errors import ImageUnreadable
from ciserver.releases.targets.images import Location, client, read_documents

log = logging.getLogger(__name__)
TOPIC = "image.pushed"
MOST_READ = 1024**3  # compressed bytes of a layer that is looked through
AT_A_TIME = 100  # of those pushed before there were records
UNUSED = timedelta(hours=1)
MOST_LAYERS = 500
MOST_LABELS = 500
MOST_SHOWN = 20_000  # characters of one part of the config, as JSON
CONFIG = ("Entrypoint", "Cmd", "User", "WorkingDir", "Env", "ExposedPorts", "Volumes", "StopSignal")


def read(pipeline: Pipeline) -> None:
    """Record each image that ``pipeline`` pushed. Raises httpx.HTTPError when the registry is
    away: then it is to be tried again."""
    for name, image in pushed(pipeline).items():
        record = record_of(image["repository"], image["digest"])
        ImageUse.objects.update_or_create(
            pipeline=pipeline,
            name=name,
            defaults={
                "project": pipeline.project,
                "image": record,
                "repository": image["repository"],
            },
        )


def pushed(pipeline: Pipeline) -> dict[str, dict[str, str]]:
    """The images by name; the deployed one has none."""
    if not pipeline.digest:
        return {}
    main = {"repository": pipeline.repository, "digest": pipeline.digest}
    beside = {name: image for name, image in pipeline.images.items() if image != main}
    return {"": main, **beside}


def promise_unread() -> int:
    """Have those read that were pushed before there were records. A chore."""
    rows = Pipeline.objects.exclude(digest="").filter(image_uses=None).order_by("-pk")
    with transaction.atomic():
        found = list(rows.values_list("pk", flat=True)[:AT_A_TIME])
        for pk in found:
            outbox.promise(TOPIC, pk)
    return len(found)


@transaction.atomic
def forget_unused() -> int:
    """What was read of images that no project has any more, since it was deleted; how many there
    were. A chore. One that was read just now may be about to be used."""
    long_ago = timezone.now() - UNUSED
    records = ImageRecord.objects.filter(uses=None, read_at__lt=long_ago)
    gone = list(records.values_list("pk", flat=True)[:AT_A_TIME])
    layers = set(ImageLayer.objects.filter(image__in=gone).values_list("layer", flat=True))
    ImageRecord.objects.filter(pk__in=gone, uses=None).delete()
    LayerRecord.objects.filter(pk__in=layers, places=None).delete()
    return len(gone)


def record_of(repository: str, digest: str) -> ImageRecord:
    """The record of ``digest``, read now if it is not known."""
    known = ImageRecord.objects.filter(digest=digest, trouble="").first()
    if known is not None:
        return known
    location = Location.parse(repository)
    try:
        documents = read_documents(location, digest, token=token_for(location))
    except ImageUnreadable as error:
        if isinstance(error.__cause__, httpx.HTTPError):
            raise error.__cause__ from error
        return _unreadable(digest, str(error))
    manifest, config = documents
    try:
        wanted = [(str(one["digest"]), int(one["size"])) for one in manifest["layers"]]
    except (KeyError, TypeError, ValueError):
        return _unreadable(digest, f"The registry holds no image under {digest}.")
    if len(wanted) > MOST_LAYERS:
        return _unreadable(digest, f"The image has more than {MOST_LAYERS} layers.")
    return write(digest, config, [_layer(location, *one) for one in wanted])


def _unreadable(digest: str, trouble: str) -> ImageRecord:
    record, _ = ImageRecord.objects.update_or_create(
        digest=digest, defaults={"trouble": trouble[:500]}
    )
    return record


def _layer(location: Location, digest: str, size: int) -> LayerRecord:
    known = LayerRecord.objects.filter(digest=digest).first()
    if known is not None:
        return known
    values: dict[str, Any] = {"size": size}
    try:
        found = _read_layer(location, digest, size)
    except listing.BadLayer as error:
        values["trouble"] = f"It was not looked through: {error}."[:300]
    else:
        values |= {
            "unpacked": found.bytes,
            "files": len(found.files),
            "listing": listing.packed(found),
            "packages": found.packages,
        }
    record, _ = LayerRecord.objects.get_or_create(digest=digest, defaults=values)
    return record


def _read_layer(location: Location, digest: str, size: int) -> listing.Listing:
    """Raises BadLayer and httpx.HTTPError."""
    if size > MOST_READ:
        raise listing.BadLayer("it is too large")
    token = token_for(location)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    with (
        client(headers) as registry,
        registry.stream("GET", f"{location.url}/blobs/{digest}") as response,
    ):
        if response.status_code == httpx.codes.NOT_FOUND:
            raise listing.BadLayer("the registry does not have it")
        response.raise_for_status()
        chunks = _checked(response.iter_raw(), digest, size)
        found = listing.read(chunks)
        for _ in chunks:  # what comes after the tar's end counts for the digest, too
            pass
        return found


def _checked(chunks: Iterator[bytes], digest: str, size: int) -> Iterator[bytes]:
    """The chunks, and BadLayer if they are not what the manifest names."""
    total, length = hashlib.sha256(), 0
    for chunk in chunks:
        length += len(chunk)
        if length > size:
            raise listing.BadLayer("it is larger than its manifest says")
        total.update(chunk)
        yield chunk
    if f"sha256:{total.hexdigest()}" != digest:
        raise listing.BadLayer("its bytes are not what its digest names")


@transaction.atomic
def write(digest: str, config: dict[str, Any], layers: list[LayerRecord]) -> ImageRecord:
    """The record of an image, made of its config (OCI image-spec) and its layers'."""
    _, wasted = listing.flatten(listing.unpacked(layer.listing) for layer in layers)
    runs = config.get("config") or {}
    shown = {key: _bounded(runs[key]) for key in CONFIG if runs.get(key)}
    shown["created"] = str(config.get("created") or "")[:100]
    shown["platform"] = f"{config.get('os', '')}/{config.get('architecture', '')}"
    record, _ = ImageRecord.objects.update_or_create(
        digest=digest,
        defaults={
            "config": shown,
            "size": sum(layer.size for layer in layers),
            "unpacked": sum(layer.unpacked for layer in layers),
            "wasted": sum(wasted),
            "trouble": "",
        },
    )
    record.layers.all().delete()
    lines = _instructions(config, len(layers))
    ImageLayer.objects.bulk_create(
        ImageLayer(
            image=record,
            layer=layer,
            position=number,
            instruction=line[:MOST_SHOWN],
            wasted=lost,
        )
        for number, (layer, line, lost) in enumerate(zip(layers, lines, wasted, strict=True))
    )
    record.labels.all().delete()
    labels = list((runs.get("Labels") or {}).items())[:MOST_LABELS]
    ImageLabel.objects.bulk_create(
        ImageLabel(image=record, name=str(name)[:200], value=str(value)[:500])
        for name, value in labels
    )
    return record


def _bounded(value: Any) -> Any:
    """Whoever made the image wrote it: a page shows what is of a bearable length."""
    return value if len(json.dumps(value)) <= MOST_SHOWN else "too long to be shown"


def _instructions(config: dict[str, Any], count: int) -> list[str]:
    """The lines of history that made layers, oldest first. Of a base that tells no history they
    are blank: each line added since is of the layers on top."""
    history = config.get("history") or []
    made = [str(one.get("created_by", "")) for one in history if not one.get("empty_layer")]
    return ([""] * count + made)[-count:] if count else []
