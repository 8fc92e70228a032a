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
from ciserver.lib.crypto import Secret
from ciserver.lib.strict import Strict
from ciserver.projects.models import Project, Role
from ciserver.repositories import services
from ciserver.repositories.models import Access

ROLES = {role.label: role for role in Role}


class RoleField(serializers.ChoiceField):
    """A role by its word."""

    def to_representation(self, value: Any) -> str:
        return Role(value).label

    def to_internal_value(self, data: Any) -> Any:
        return ROLES[super().to_internal_value(data)]


class RulesSerializer(Strict):
    """Where it is and what a push may do. A pattern is such as ``release/*``; the default branch
    is protected. ``clone_url`` is empty of what Gantry hosts, and cannot be changed then."""

    clone_url = serializers.CharField(max_length=500, allow_blank=True)
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
        """Where it is, which refs are protected, who may push to them, how much one push may
        bring."""
        return Response(RulesSerializer(find(request, slug)).data)

    @extend_schema(request=RulesSerializer(partial=True), responses=RulesSerializer)
    def patch(self, request: Request, slug: str) -> Response:
        """Change what is given. Needs the role maintainer. Another server is not given the login of
        the one before it, and its host keys are pinned anew."""
        project = find(request, slug)
        given = RulesSerializer(data=request.data, partial=True)
        given.is_valid(raise_exception=True)
        user = cast(User, request.user)
        row = services.set_rules(project=project, user=user, **given.validated_data)
        return Response(RulesSerializer(row).data)


class AccessSerializer(serializers.Serializer[Access]):
    """How Gantry gets into a private repository. No private half, no password."""

    public_key = serializers.CharField(help_text="give it to the forge as a deploy key, to read")
    username = serializers.CharField(help_text="what an https repository is asked with")
    fingerprints = serializers.ListField(
        child=serializers.CharField(), help_text="of the host's keys, pinned by the first fetch"
    )
    host_keys_at = serializers.DateTimeField(allow_null=True)


class LoginSerializer(serializers.Serializer[Any]):
    username = serializers.CharField(max_length=150)
    password = serializers.CharField(write_only=True, trim_whitespace=False)


class AccessView(APIView):
    """The deploy key, the login and the pinned host keys of an outside repository."""

    @extend_schema(responses=AccessSerializer)
    def get(self, request: Request, slug: str) -> Response:
        """The public half of the key, the login's name, the host's fingerprints."""
        project = find(request, slug)
        row = Access.objects.filter(project=project).first() or Access(project=project)
        return Response(AccessSerializer(row).data)


class KeyView(APIView):
    @extend_schema(request=None, responses=AccessSerializer)
    def post(self, request: Request, slug: str) -> Response:
        """Make a new deploy key; the one before it is gone. Needs the role maintainer."""
        user = cast(User, request.user)
        row = services.renew_key(project=find(request, slug), user=user)
        return Response(AccessSerializer(row).data)


class LoginView(APIView):
    @extend_schema(request=LoginSerializer, responses=AccessSerializer)
    def put(self, request: Request, slug: str) -> Response:
        """Name and password, or token, for an https repository. Needs the role maintainer."""
        given = LoginSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        row = services.set_login(
            project=find(request, slug),
            user=cast(User, request.user),
            username=given.validated_data["username"],
            password=Secret(given.validated_data["password"]),
        )
        return Response(AccessSerializer(row).data)

    @extend_schema(responses={204: None})
    def delete(self, request: Request, slug: str) -> Response:
        """Ask without a login from now on. Needs the role maintainer."""
        user = cast(User, request.user)
        services.set_login(project=find(request, slug), user=user, username="", password=None)
        return Response(status=204)


class HostKeysView(APIView):
    @extend_schema(responses={204: None})
    def delete(self, request: Request, slug: str) -> Response:
        """Pin whatever key the host shows next. Needs the role maintainer."""
        user = cast(User, request.user)
        services.forget_host_keys(project=find(request, slug), user=user)
        return Response(status=204)
