"""One's own password and sessions, and for administrators users and teams, over the API."""

from __future__ import annotations

from typing import Any, ClassVar, cast

from django.db.models import Q, QuerySet
from django.http import Http404
from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_view
from rest_framework import mixins, serializers, status, viewsets
from rest_framework.decorators import action
from rest_framework.permissions import BasePermission, IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from ciserver.accounts import lock, teams, users
from ciserver.accounts.models import Session, Team, User
from ciserver.lib.strict import Strict


class IsAdministrator(BasePermission):
    message = "This is for administrators."

    def has_permission(self, request: Request, view: Any) -> bool:
        return bool(request.user and request.user.is_active and request.user.is_superuser)


class AccountSerializer(serializers.ModelSerializer[User]):
    """A user as administrators see them."""

    teams = serializers.SlugRelatedField[Any](slug_field="name", many=True, read_only=True)

    class Meta:
        model = User
        fields = [
            "id",
            "username",
            "email",
            "is_active",
            "is_superuser",
            "date_joined",
            "last_login",
            "teams",
        ]


class NewUserSerializer(serializers.Serializer[Any]):
    username = serializers.CharField(max_length=63)
    email = serializers.CharField(max_length=254, required=False, allow_blank=True)
    admin = serializers.BooleanField(required=False, default=False)


class ChangedUserSerializer(Strict):
    """What is left out stays."""

    is_active = serializers.BooleanField(required=False)
    is_superuser = serializers.BooleanField(required=False)


class ResetSerializer(serializers.Serializer[Any]):
    end_tokens = serializers.BooleanField(required=False, default=False)


class LinkSerializer(serializers.Serializer[Any]):
    """``link``: opens the page that sets a password; works once, for three days."""

    username = serializers.CharField()
    link = serializers.URLField()


def _named(request: Request, rows: QuerySet[Any], *columns: str) -> QuerySet[Any]:
    """``rows`` of which a column holds what ``q`` asks for."""
    words = request.query_params.get("q", "").strip()[:100]
    found = Q()
    for column in columns:
        found |= Q(**{f"{column}__icontains": words})
    return rows.filter(found) if words else rows


@extend_schema_view(
    list=extend_schema(
        parameters=[OpenApiParameter("q", str, description="part of the name or the address")]
    )
)
class UserViewSet(mixins.ListModelMixin, mixins.RetrieveModelMixin, viewsets.GenericViewSet[User]):
    """Everybody who can sign in. For administrators."""

    queryset = User.objects.prefetch_related("teams")
    serializer_class = AccountSerializer
    permission_classes = [IsAuthenticated, IsAdministrator]
    lookup_field = "username"
    lookup_value_regex = r"[\w.+@-]+"

    def get_queryset(self) -> QuerySet[User]:
        rows = super().get_queryset()
        return _named(self.request, rows, "username", "email") if self.action == "list" else rows

    @extend_schema(request=NewUserSerializer, responses={201: LinkSerializer})
    def create(self, request: Request) -> Response:
        """Make a user. The answer has the link to set a password, this once."""
        given = NewUserSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        user, link = users.create(by=cast(User, request.user), **given.validated_data)
        return _unkept({"username": user.username, "link": link}, status.HTTP_201_CREATED)

    @extend_schema(request=ChangedUserSerializer, responses=AccountSerializer)
    def partial_update(self, request: Request, username: str) -> Response:
        """Switch an account off (its sessions and tokens end) or on, or make an administrator."""
        given = ChangedUserSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        user, by = self.get_object(), cast(User, request.user)
        wanted = given.validated_data
        if wanted.get("is_superuser", user.is_superuser) != user.is_superuser:
            user = users.set_admin(user=user, by=by, admin=wanted["is_superuser"])
        if wanted.get("is_active", user.is_active) != user.is_active:
            change = users.enable if wanted["is_active"] else users.disable
            user = change(user=user, by=by)
        return Response(self.get_serializer(user).data)

    @extend_schema(request=ResetSerializer, responses=LinkSerializer)
    @action(detail=True, methods=["post"], url_path="reset-password")
    def reset_password(self, request: Request, username: str) -> Response:
        """Take the password away, end all sessions, and make a link to set another."""
        given = ResetSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        user = self.get_object()
        link = users.reset_password(user=user, by=cast(User, request.user), **given.validated_data)
        return _unkept({"username": user.username, "link": link})


class TeamSerializer(serializers.ModelSerializer[Team]):
    members = serializers.SlugRelatedField[Any](slug_field="username", many=True, read_only=True)

    class Meta:
        model = Team
        fields = ["id", "name", "description", "members", "created_at"]
        extra_kwargs: ClassVar[dict[str, Any]] = {
            "name": {"validators": []}
        }  # the service refuses, with the next step


@extend_schema_view(
    list=extend_schema(
        parameters=[OpenApiParameter("q", str, description="part of the name or the description")]
    )
)
class TeamViewSet(
    mixins.ListModelMixin,
    mixins.RetrieveModelMixin,
    mixins.CreateModelMixin,
    mixins.DestroyModelMixin,
    viewsets.GenericViewSet[Team],
):
    """Teams: those the caller is in; all of them for administrators, who alone change them."""

    queryset = Team.objects.all()
    serializer_class = TeamSerializer
    lookup_field = "name"
    lookup_value_regex = "[a-z0-9-]+"

    def get_queryset(self) -> QuerySet[Team]:
        user = cast(User, self.request.user)
        seen = Team.objects.all() if user.is_superuser else Team.objects.filter(members=user)
        rows = seen.prefetch_related("members")
        return _named(self.request, rows, "name", "description") if self.action == "list" else rows

    def perform_create(self, serializer: serializers.BaseSerializer[Any]) -> None:
        by = cast(User, self.request.user)
        serializer.instance = teams.create(by=by, **serializer.validated_data)

    def perform_destroy(self, instance: Team) -> None:
        teams.delete(team=instance, by=cast(User, self.request.user))

    @extend_schema(request=None, responses=TeamSerializer)
    @action(detail=True, methods=["put"], url_path=r"members/(?P<username>[\w.+@-]+)")
    def member(self, request: Request, name: str, username: str) -> Response:
        """Put somebody into the team."""
        team = self.get_object()
        teams.add(team=team, by=cast(User, request.user), username=username)
        return Response(self.get_serializer(self.get_object()).data)

    @extend_schema(responses={204: None})
    @member.mapping.delete
    def remove_member(self, request: Request, name: str, username: str) -> Response:
        """Take somebody out of the team."""
        team = self.get_object()
        if not teams.remove(team=team, by=cast(User, request.user), username=username):
            raise Http404
        return Response(status=status.HTTP_204_NO_CONTENT)


class PasswordSerializer(serializers.Serializer[Any]):
    old = serializers.CharField(trim_whitespace=False, max_length=4096, write_only=True)
    new = serializers.CharField(trim_whitespace=False, max_length=4096, write_only=True)


class Password(APIView):
    """One's own password."""

    @extend_schema(request=PasswordSerializer, responses={204: None})
    def post(self, request: Request) -> Response:
        """Change it. Every session ends; tokens go on."""
        given = PasswordSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        users.change_password(
            user=cast(User, request.user),
            address=lock.address_of(request),
            **given.validated_data,
        )
        return Response(status=status.HTTP_204_NO_CONTENT)


class SessionSerializer(serializers.ModelSerializer[Session]):
    """A browser that is signed in. ``name`` tells it from others, and opens nothing."""

    name = serializers.CharField(read_only=True)

    class Meta:
        model = Session
        fields = ["name", "signed_in_at", "address", "agent", "expire_date"]


class Sessions(APIView):
    """Where one is signed in."""

    @extend_schema(responses=SessionSerializer(many=True))
    def get(self, request: Request) -> Response:
        rows = cast(User, request.user).sessions.order_by("-expire_date")
        return Response(SessionSerializer(rows, many=True).data)


class OneSession(APIView):
    @extend_schema(responses={204: None})
    def delete(self, request: Request, name: str) -> Response:
        """End a session of one's own."""
        user = cast(User, request.user)
        if not users.end_session(user=user, name=name):
            raise Http404
        return Response(status=status.HTTP_204_NO_CONTENT)


def _unkept(row: dict[str, str], code: int = status.HTTP_200_OK) -> Response:
    """It holds a link that sets a password."""
    answer = Response(row, status=code)
    answer.headers["Cache-Control"] = "no-store"
    return answer
