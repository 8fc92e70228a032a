"""Signing in and out, and one's own tokens."""

from __future__ import annotations

from typing import Any, cast

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.contrib.auth.forms import AuthenticationForm
from django.contrib.auth.views import LoginView, LogoutView
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_http_methods, require_POST

from ciserver.accounts import lock, services
from ciserver.accounts.forms import SignInForm, TokenForm
from ciserver.accounts.models import AuditEntry, Scope, User
from ciserver.accounts.sessions import note_sign_in
from ciserver.lib.problems import Refused


class SignIn(LoginView):
    """The form of signing in; 429 while the brute-force lock holds."""

    template_name = "accounts/login.html"
    authentication_form = SignInForm
    redirect_authenticated_user = True

    def form_valid(self, form: AuthenticationForm) -> HttpResponse:
        answer = super().form_valid(form)
        address = lock.address_of(self.request)
        note_sign_in(self.request, address)
        wrong_before = form.wrong_before if isinstance(form, SignInForm) else 0
        _tell("account.sign-in", form.get_user(), address=address, wrong_before=wrong_before)
        return answer

    def form_invalid(self, form: AuthenticationForm) -> HttpResponse:
        answer = super().form_invalid(form)
        if isinstance(form, SignInForm) and form.locked:
            answer.status_code = 429
        return answer


class SignOut(LogoutView):
    """Ends the session that asks."""

    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        if isinstance(request.user, User):
            _tell("account.sign-out", request.user, address=lock.address_of(request))
        return super().post(request, *args, **kwargs)


def _tell(action: str, user: Any, **detail: Any) -> None:
    name = user.get_username()
    AuditEntry.record(actor=name, action=action, target=name, **detail)


sign_in = SignIn.as_view()
sign_out = SignOut.as_view()


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
def tokens(request: HttpRequest) -> HttpResponse:
    """The tokens of who is signed in. A new one is shown on the answer that makes it, only."""
    user = cast(User, request.user)
    form = TokenForm(request.POST or None)
    text = ""
    if request.method == "POST" and form.is_valid():
        try:
            _, text = services.make_token(
                user=user,
                name=form.cleaned_data["name"],
                scope=Scope(form.cleaned_data["scope"]),
                lifetime=form.lifetime,
                project=form.cleaned_data["project"].strip(),
            )
            form = TokenForm()
        except Refused as refusal:
            form.add_error("project", str(refusal))
    own = user.tokens.select_related("project").order_by("-pk")
    context = {"form": form, "tokens": own, "new_token": text}
    response = render(request, "accounts/tokens.html", context, status=400 if form.errors else 200)
    response.headers["Cache-Control"] = "no-store"
    return response


@login_required
@require_POST
def revoke_token(request: HttpRequest, pk: int) -> HttpResponse:
    user = cast(User, request.user)
    token = get_object_or_404(user.tokens, pk=pk)
    services.revoke_token(token=token, by=user)
    messages.success(request, f"The token “{token.name}” no longer works.")
    return redirect("tokens")
