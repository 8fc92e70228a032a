"""The service's own ASGI application with one view more, which does nothing: what Django costs."""

from __future__ import annotations

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

from ciserver.asgi import application
from ciserver.urls import urlpatterns as service

__all__ = ["application", "urlpatterns"]


@csrf_exempt
def empty(request: HttpRequest) -> HttpResponse:
    return HttpResponse(status=204)


urlpatterns = [path("empty/", empty), *service]
settings.ROOT_URLCONF = __name__
