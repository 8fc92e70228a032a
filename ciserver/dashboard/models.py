"""What images hold, as the registry told it once: a digest names the same bytes for ever."""

from __future__ import annotations

from django.db import models

from ciserver.pipelines.models import Pipeline
from ciserver.projects.models import Project


class LayerRecord(models.Model):
    """A layer by the digest of its compressed tar. Sizes are bytes."""

    digest = models.CharField(max_length=80, unique=True)
    size = models.BigIntegerField()  # compressed, as it travels
    unpacked = models.BigIntegerField(default=0)  # of its files
    files = models.PositiveIntegerField(default=0)
    listing = models.BinaryField(default=b"")  # see ``listing.packed``
    packages = models.JSONField(default=dict)  # kind -> name -> version, as its own files tell
    trouble = models.CharField(max_length=300, blank=True)  # why it was not looked through

    def __str__(self) -> str:
        return self.digest


class ImageRecord(models.Model):
    """An image by the digest of its manifest. ``config`` is the image config's own ``config``
    (OCI image-spec) with ``created`` and ``platform`` beside it."""

    digest = models.CharField(max_length=80, unique=True)
    config = models.JSONField(default=dict)
    size = models.BigIntegerField(default=0)  # compressed bytes of all layers
    unpacked = models.BigIntegerField(default=0)
    wasted = models.BigIntegerField(default=0)  # of ``unpacked``, see ImageLayer
    trouble = models.CharField(max_length=500, blank=True)  # why nothing of it is known
    read_at = models.DateTimeField(auto_now=True)

    def __str__(self) -> str:
        return self.digest


class ImageLayer(models.Model):
    """A layer's place in an image. ``wasted`` bytes are of files that later layers replace or
    delete: they travel, and no container sees them."""

    image = models.ForeignKey(ImageRecord, models.CASCADE, related_name="layers")
    layer = models.ForeignKey(LayerRecord, models.PROTECT, related_name="places")
    position = models.PositiveSmallIntegerField()
    instruction = models.TextField(blank=True)  # ``created_by`` of its line of history
    wasted = models.BigIntegerField(default=0)

    class Meta:
        ordering = ["position"]
        constraints = [
            models.UniqueConstraint(fields=["image", "position"], name="image_layer_position")
        ]

    def __str__(self) -> str:
        return f"{self.image} {self.position}"


class ImageLabel(models.Model):
    """A label of an image's config, to be searched."""

    image = models.ForeignKey(ImageRecord, models.CASCADE, related_name="labels")
    name = models.CharField(max_length=200)
    value = models.CharField(max_length=500, blank=True)

    class Meta:
        ordering = ["name"]
        indexes = [models.Index(fields=["name", "value"], name="image_label")]

    def __str__(self) -> str:
        return f"{self.name}={self.value}"


class ImageUse(models.Model):
    """A pipeline pushed this image, tagged by its commit. ``name`` is that of one beside the
    deployed image, or empty. Whoever sees the project sees the image."""

    project = models.ForeignKey(Project, models.CASCADE, related_name="image_uses")
    pipeline = models.ForeignKey(Pipeline, models.CASCADE, related_name="image_uses")
    image = models.ForeignKey(ImageRecord, models.CASCADE, related_name="uses")
    name = models.CharField(max_length=100, blank=True)
    repository = models.CharField(max_length=300)

    class Meta:
        ordering = ["-pipeline_id", "name"]
        constraints = [
            models.UniqueConstraint(fields=["pipeline", "name"], name="image_of_a_pipeline")
        ]

    def __str__(self) -> str:
        return f"{self.repository}@{self.image}"
