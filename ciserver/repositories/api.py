"""A project's repository over the API: ``/api/v1/projects/SLUG/repository/``."""

from __future__ import annotations

from typing import Any, cast

from django.http import Http404
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from ciserver.accounts.models import User
from ciserver.projects.models import Project, Role
from ciserver.repositories import services

ROLES = {role.label: role for role in Role}


class RoleField(serializers.ChoiceField):
    """A role by its word."""

    def to_representation(self, value: Any) -> str:
        return Role(value).label

    def to_internal_value(self, data: Any) -> Any:
        return ROLES[super().to_internal_value(data)]


class RulesSerializer(serializers.Serializer[Project]):
    """What a push may do. A pattern is such as ``release/*``; the default branch is protected."""

    default_branch = serializers.CharField(max_length=200)
    protected_branches = serializers.ListField(child=serializers.CharField())
    protected_tags = serializers.ListField(child=serializers.CharField())
    push_role = RoleField(choices=["developer", "maintainer", "owner"])
    max_push_mib = serializers.IntegerField()
    max_push_refs = serializers.IntegerField()


def find(request: Request, slug: str) -> Project:
    project = Project.objects.visible_to(request.user).filter(slug=slug).first()
    if project is None:
        raise Http404
    return project


class Rules(APIView):
    """The rules of a project's repository."""

    @extend_schema(responses=RulesSerializer)
    def get(self, request: Request, slug: str) -> Response:
        """Which refs are protected, who may push to them, how much one push may bring."""
        return Response(RulesSerializer(find(request, slug)).data)

    @extend_schema(request=RulesSerializer(partial=True), responses=RulesSerializer)
    def patch(self, request: Request, slug: str) -> Response:
        """Change what is given. Needs the role maintainer."""
        project = find(request, slug)
        given = RulesSerializer(data=request.data, partial=True)
        given.is_valid(raise_exception=True)
        user = cast(User, request.user)
        row = services.set_rules(project=project, user=user, **given.validated_data)
        return Response(RulesSerializer(row).data)
