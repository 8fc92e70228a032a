"""Who the caller is, and the caller's own tokens."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, cast

from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework import mixins, serializers, status, viewsets
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from ciserver.accounts import services
from ciserver.accounts.models import Scope, Token, User


class UserSerializer(serializers.ModelSerializer[User]):
    class Meta:
        model = User
        fields = ["id", "username", "email", "is_superuser"]


class Me(APIView):
    """The caller, as the token or session says."""

    @extend_schema(responses=UserSerializer)
    def get(self, request: Request) -> Response:
        return Response(UserSerializer(cast(User, request.user)).data)


class TokenSerializer(serializers.ModelSerializer[Token]):
    """A token without its text; ``hint`` is how that begins."""

    project = serializers.CharField(
        source="project.slug",
        default=None,
        allow_null=True,
        read_only=True,
        help_text="the only one it opens; null: all",
    )

    class Meta:
        model = Token
        fields = [
            "id", "name", "hint", "scope", "project", "created_at", "expires_at", "last_used_at",
        ]  # fmt: skip


class NewTokenSerializer(serializers.Serializer[dict[str, Any]]):
    """``days`` is its lifetime; null makes a token that does not end. Without it: 90 days, or as
    long as the token that asks, where that ends sooner."""

    name = serializers.CharField(max_length=80)
    scope = serializers.ChoiceField(choices=Scope.choices, default=Scope.READ)
    days = serializers.IntegerField(min_value=1, max_value=3650, allow_null=True, required=False)
    project = serializers.CharField(
        default="", allow_blank=True, help_text="name of the only one that it opens"
    )


class MadeTokenSerializer(TokenSerializer):
    """The only answer that holds the token's text."""

    token = serializers.CharField(read_only=True)

    class Meta(TokenSerializer.Meta):
        fields = [*TokenSerializer.Meta.fields, "token"]


class TokenViewSet(
    mixins.ListModelMixin,
    mixins.RetrieveModelMixin,
    mixins.DestroyModelMixin,
    viewsets.GenericViewSet[Token],
):
    """The caller's own tokens. A token can make others that end no later than itself."""

    queryset = Token.objects.all()
    serializer_class = TokenSerializer

    def get_queryset(self) -> QuerySet[Token]:
        own = self.queryset.filter(user=cast(User, self.request.user))
        return own.select_related("project")

    @extend_schema(request=NewTokenSerializer, responses={201: MadeTokenSerializer})
    def create(self, request: Request) -> Response:
        asked = NewTokenSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        by = request.auth if isinstance(request.auth, Token) else None
        lifetime: timedelta | None = services.usual_lifetime(by)
        if "days" in asked.validated_data:
            days = asked.validated_data["days"]
            lifetime = timedelta(days=days) if days else None
        made, text = services.make_token(
            user=cast(User, request.user),
            name=asked.validated_data["name"],
            scope=Scope(asked.validated_data["scope"]),
            lifetime=lifetime,
            by=by,
            project=asked.validated_data["project"],
        )
        row = {**TokenSerializer(made).data, "token": text}
        answer = Response(row, status=status.HTTP_201_CREATED)
        answer.headers["Cache-Control"] = "no-store"
        return answer

    def perform_destroy(self, instance: Token) -> None:
        services.revoke_token(token=instance, by=cast(User, self.request.user))
