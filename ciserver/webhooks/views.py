"""``POST /hooks/FORGE/PROJECT/`` as one of Django's views; see ``intake`` for what it answers.

The web process answers by ``asgi.Hooks`` instead, which stands before Django and calls the same.
"""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from ciserver.webhooks.intake import Hook, answer_all


@csrf_exempt
@require_POST
def receive(request: HttpRequest, forge: str, slug: str) -> HttpResponse:
    return answer_all([Hook(request, forge, slug)])[0]
