"""The forms of ``preview``: what a deployment would change."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers


class CommitSerializer(serializers.Serializer[Any]):
    sha = serializers.CharField()
    author = serializers.CharField()
    subject = serializers.CharField()


class SettingChangeSerializer(serializers.Serializer[Any]):
    """``old`` or ``new`` null: it was not, or is no longer, set."""

    name = serializers.CharField()
    old = serializers.CharField(allow_null=True)
    new = serializers.CharField(allow_null=True)


class NewLayerSerializer(serializers.Serializer[Any]):
    """``files`` null: not read, because it is large or because nothing runs there yet."""

    digest = serializers.CharField(source="layer.digest")
    size = serializers.IntegerField(source="layer.size")
    count = serializers.IntegerField()
    files = serializers.ListField(child=serializers.CharField(), allow_null=True)


class TravelSerializer(serializers.Serializer[Any]):
    host = serializers.CharField(source="host.name")
    layers = serializers.IntegerField()
    bytes = serializers.IntegerField()


class PreviewSerializer(serializers.Serializer[Any]):
    """What the deployment would change; ``unknown`` says which nulls could not be read, and why."""

    current = serializers.CharField(source="current.name", default=None, allow_null=True)
    back = serializers.BooleanField()
    releases = serializers.SerializerMethodField()
    commits = CommitSerializer(many=True, allow_null=True)
    commit_count = serializers.IntegerField()
    variables = SettingChangeSerializer(many=True)
    settings = SettingChangeSerializer(many=True)
    layers = NewLayerSerializer(many=True, allow_null=True)
    travels = TravelSerializer(many=True, allow_null=True)
    unknown = serializers.ListField(child=serializers.CharField())

    def get_releases(self, preview: Any) -> list[str]:
        return [release.name for release in preview.releases]


class PromotionPreviewSerializer(PreviewSerializer):
    """With what the promotion would wait for, and what an approval of it names."""

    configuration = serializers.CharField()
    waits_for = serializers.ListField(child=serializers.CharField())
