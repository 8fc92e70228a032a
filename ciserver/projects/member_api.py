"""A project's members over the API: people and teams with their roles."""

from __future__ import annotations

from typing import Any, cast

from django.http import Http404
from django.shortcuts import get_object_or_404
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from ciserver.accounts.models import User
from ciserver.projects import members
from ciserver.projects.models import Project, Role

ROLES = {role.label: role for role in Role}


class MemberSerializer(serializers.Serializer[Any]):
    """``role`` is the one that counts: the highest of ``own`` and of those through ``teams``."""

    username = serializers.CharField()
    role = serializers.ChoiceField(choices=list(ROLES))
    own = serializers.ChoiceField(choices=list(ROLES), allow_null=True)
    teams = serializers.DictField(child=serializers.CharField(), help_text="team: role")
    active = serializers.BooleanField()


class TeamRoleSerializer(serializers.Serializer[Any]):
    team = serializers.CharField()
    role = serializers.ChoiceField(choices=list(ROLES))
    people = serializers.IntegerField()


class MembersSerializer(serializers.Serializer[Any]):
    people = MemberSerializer(many=True)
    teams = TeamRoleSerializer(many=True)


class RoleSerializer(serializers.Serializer[Any]):
    role = serializers.ChoiceField(choices=list(ROLES))


class Members(APIView):
    """Who has which role in a project."""

    @extend_schema(responses=MembersSerializer)
    def get(self, request: Request, slug: str) -> Response:
        return Response(_shown(_project(request, slug)))


class OneMember(APIView):
    """One person's own role. For owners; everybody may remove themselves."""

    @extend_schema(request=RoleSerializer, responses=MembersSerializer)
    def put(self, request: Request, slug: str, username: str) -> Response:
        """Give somebody a role, whether they had one or not."""
        project = _project(request, slug)
        members.set_member(
            project=project, by=cast(User, request.user), username=username, role=_role(request)
        )
        return Response(_shown(project))

    @extend_schema(responses={204: None})
    def delete(self, request: Request, slug: str, username: str) -> Response:
        project = _project(request, slug)
        by = cast(User, request.user)
        if not members.remove_member(project=project, by=by, username=username):
            raise Http404
        return Response(status=204)


class OneTeam(APIView):
    """One team's role. For owners."""

    @extend_schema(request=RoleSerializer, responses=MembersSerializer)
    def put(self, request: Request, slug: str, name: str) -> Response:
        project = _project(request, slug)
        members.set_team(
            project=project, by=cast(User, request.user), name=name, role=_role(request)
        )
        return Response(_shown(project))

    @extend_schema(responses={204: None})
    def delete(self, request: Request, slug: str, name: str) -> Response:
        project = _project(request, slug)
        if not members.remove_team(project=project, by=cast(User, request.user), name=name):
            raise Http404
        return Response(status=204)


def _project(request: Request, slug: str) -> Project:
    return get_object_or_404(Project.objects.visible_to(request.user), slug=slug)


def _role(request: Request) -> Role:
    given = RoleSerializer(data=request.data)
    given.is_valid(raise_exception=True)
    return ROLES[given.validated_data["role"]]


def _shown(project: Project) -> dict[str, Any]:
    people = [
        {
            "username": member.user.username,
            "role": member.role.label,
            "own": member.own.label if member.own else None,
            "teams": {name: role.label for name, role in member.teams.items()},
            "active": member.user.is_active,
        }
        for member in members.members_of(project)
    ]
    return {"people": people, "teams": members.teams_of(project)}
