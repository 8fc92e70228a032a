"""Images as a registry would have told of them: a shared base, a package, an application."""

from __future__ import annotations

from typing import Any

from ciserver.dashboard import image_reading
from ciserver.dashboard.listing import Listing, packed
from ciserver.dashboard.models import ImageRecord, ImageUse, LayerRecord
from ciserver.pipelines.models import Pipeline

MIB = 1024 * 1024
BASE = Listing(
    files={
        "usr/bin/python3": (6 * MIB, "py"),
        "usr/lib/libssl.so.3": (4 * MIB, "ssl"),
        "usr/share/doc/openssl": (2 * MIB, "doc"),
    },
    packages={"dpkg": {"openssl": "3.0.17-1", "python3-minimal": "3.11.2"}},
)
PACKAGES = Listing(
    files={
        "usr/lib/python3/flask/app.py": (900_000, "flask"),
        "usr/lib/python3/flask-3.1.0.dist-info/METADATA": (4_000, "meta"),
        "root/.cache/pip/http": (3 * MIB, "cache"),
    }
)
RUN_PIP = "RUN pip install --no-cache-dir -r requirements.txt"


def layer(digest: str, listing: Listing) -> LayerRecord:
    record, _ = LayerRecord.objects.get_or_create(
        digest=digest,
        defaults={
            "size": listing.bytes // 3,
            "unpacked": listing.bytes,
            "files": len(listing.files),
            "listing": packed(listing),
            "packages": listing.packages,
        },
    )
    return record


def make_image(pipeline: Pipeline, **labels: str) -> ImageRecord:
    """What ``pipeline`` pushed: its own COPY on the base and packages that all share."""
    from tests.ciserver.pages.seeding import digest_of

    number = pipeline.number
    own = Listing(
        files={"app/hello.py": (80_000 + number, f"v{number}"), "app/version": (8, f"{number}")},
        gone=["root/.cache/pip"],
    )
    layers = [
        layer(digest_of("base"), BASE),
        layer(digest_of("packages"), PACKAGES),
        layer(digest_of(f"own {pipeline.digest}"), own),
    ]
    history = [
        {"created_by": "mmdebstrap bookworm"},
        {"created_by": "WORKDIR /app", "empty_layer": True},
        {"created_by": RUN_PIP},
        {"created_by": "COPY . ."},
    ]
    config: dict[str, Any] = {
        "os": "linux",
        "architecture": "amd64",
        "created": "2026-11-24T08:00:00Z",
        "history": history,
        "config": {
            "Cmd": ["python", "-m", "hello"],
            "Env": ["PATH=/usr/bin", f"BUILD={number}"],
            "ExposedPorts": {"8080/tcp": {}},
            "Labels": {"org.opencontainers.image.title": pipeline.project.slug} | labels,
        },
    }
    record = image_reading.write(pipeline.digest, config, layers)
    ImageUse.objects.create(
        project=pipeline.project, pipeline=pipeline, image=record, repository=pipeline.repository
    )
    return record
