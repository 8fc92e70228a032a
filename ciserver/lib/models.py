"""The outbox: work that was promised in a transaction and is not claimed yet."""

from __future__ import annotations

from django.db import models


class OutboxEntry(models.Model):
    """One promise. It is written with the row it is about, and deleted when that is claimed.

    Redis only carries a wake-up; whatever it loses, the sweeper finds here.
    """

    topic = models.CharField(max_length=40)
    object_id = models.BigIntegerField()
    created_at = models.DateTimeField(auto_now_add=True)
    woken_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["topic", "object_id"], name="one_promise_per_object")
        ]

    def __str__(self) -> str:
        return f"{self.topic} {self.object_id}"
