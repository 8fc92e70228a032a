"""How coverage is told over the API."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers


class FileCoverageSerializer(serializers.Serializer[Any]):
    path = serializers.CharField()
    lines = serializers.IntegerField(help_text="that can run")
    covered = serializers.IntegerField()
    percent = serializers.FloatField()
    missed = serializers.CharField(help_text="ranges of lines, as 1-3,7")
    change = serializers.FloatField(allow_null=True, help_text="percentage points against the base")


class CoverageSerializer(serializers.Serializer[Any]):
    coverage = serializers.FloatField(allow_null=True, help_text="percent of lines")
    change = serializers.FloatField(allow_null=True, help_text="percentage points against the base")
    base = serializers.IntegerField(allow_null=True, help_text="id of the pipeline compared with")
    files = FileCoverageSerializer(many=True)
