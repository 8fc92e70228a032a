"""One's own account, and for administrators users and teams."""

from __future__ import annotations

from typing import Any, cast

from django.contrib import messages
from django.contrib.auth import update_session_auth_hash
from django.contrib.auth.decorators import login_required
from django.contrib.auth.forms import SetPasswordForm
from django.contrib.auth.views import PasswordResetConfirmView
from django.db.models import Count
from django.forms import Form
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse, reverse_lazy
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from ciserver.accounts import lock, teams, users
from ciserver.accounts.forms import PasswordForm, TeamForm, UserForm
from ciserver.accounts.models import AuditEntry, Team, User
from ciserver.accounts.sessions import end_sessions
from ciserver.lib.problems import Refused


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
def account(request: HttpRequest) -> HttpResponse:
    """One's own password, sessions and teams."""
    user = cast(User, request.user)
    form = PasswordForm(request.POST or None)
    status = 200
    if request.method == "POST" and form.is_valid():
        try:
            users.change_password(
                user=user,
                old=form.cleaned_data["old"],
                new=form.cleaned_data["new"],
                address=lock.address_of(request),
                keep_session=request.session.session_key,
            )
        except Refused as refusal:
            form.add_error("new" if refusal.code == "password.new" else "old", str(refusal))
            status = refusal.status
        else:
            update_session_auth_hash(request, user)
            messages.success(request, "Your password is changed. Other sessions have ended.")
            return redirect("account")
    context = {
        "form": form,
        "sessions": user.sessions.order_by("-expire_date"),
        "here": request.session.session_key,
        "teams": user.teams.all(),
    }
    status = max(status, 400) if form.errors else 200
    return render(request, "accounts/account.html", context, status=status)


@login_required
@require_POST
def end_session(request: HttpRequest) -> HttpResponse:
    if not users.end_session(user=cast(User, request.user), name=request.POST.get("name", "")):
        raise Http404
    messages.success(request, "That session has ended.")
    return redirect("account")


class SetPassword(PasswordResetConfirmView):
    """Where the link of an administrator leads; it works once."""

    template_name = "accounts/set_password.html"
    success_url = reverse_lazy("login")

    def form_valid(self, form: SetPasswordForm[Any]) -> HttpResponse:
        answer = super().form_valid(form)
        user = cast(User, form.user)
        end_sessions(user)
        AuditEntry.record(actor=user.username, action="account.password", target=user.username)
        messages.success(self.request, "Your password is set. Sign in with it.")
        return answer


set_password = SetPassword.as_view()


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
def all_users(request: HttpRequest) -> HttpResponse:
    """Everybody, and a form for one more. Its answer shows the link to set a password, once."""
    me = _admin(request)
    form = UserForm(request.POST or None)
    made: User | None = None
    link = ""
    if request.method == "POST" and form.is_valid():
        try:
            made, link = users.create(by=me, **form.cleaned_data)
            form = UserForm()
        except Refused as refusal:
            form.add_error("email" if refusal.code == "user.email" else "username", str(refusal))
    rows = User.objects.order_by("username").prefetch_related("teams")
    context = {"form": form, "users": rows, "made": made, "link": link}
    return _unkept(render(request, "accounts/users.html", context, status=_status(form)))


@login_required
@require_safe
def one_user(request: HttpRequest, username: str) -> HttpResponse:
    """A user: what they are in, and what an administrator may do about them."""
    _admin(request)
    return _user_page(request, get_object_or_404(User, username=username))


@login_required
@require_POST
def change_user(request: HttpRequest, username: str) -> HttpResponse:
    """``do``: disable, enable, admin, no-admin, or reset."""
    me = _admin(request)
    row = get_object_or_404(User, username=username)
    do = request.POST.get("do", "")
    try:
        if do == "reset":
            end_tokens = "end_tokens" in request.POST
            link = users.reset_password(user=row, by=me, end_tokens=end_tokens)
            return _user_page(request, row, link=link)
        if do == "disable":
            users.disable(user=row, by=me)
        elif do == "enable":
            users.enable(user=row, by=me)
        elif do in {"admin", "no-admin"}:
            users.set_admin(user=row, by=me, admin=do == "admin")
        else:
            raise Http404
    except Refused as refusal:
        return _refused(request, refusal, reverse("user", args=[username]))
    messages.success(request, "Done.")
    return redirect("user", username)


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
def all_teams(request: HttpRequest) -> HttpResponse:
    """An administrator sees and makes teams; others see those they are in."""
    me = cast(User, request.user)
    form = TeamForm(request.POST or None)
    if request.method == "POST":
        _admin(request)
        if form.is_valid():
            try:
                team = teams.create(by=me, **form.cleaned_data)
                return redirect("team", team.name)
            except Refused as refusal:
                form.add_error("name", str(refusal))
    seen = Team.objects.all() if me.is_superuser else me.teams.all()
    context = {"form": form, "teams": seen.annotate(people=Count("members"))}
    return render(request, "accounts/teams.html", context, status=_status(form))


@login_required
@require_safe
def one_team(request: HttpRequest, name: str) -> HttpResponse:
    _admin(request)
    team = get_object_or_404(Team, name=name)
    roles = team.memberships.select_related("project")
    context = {"team": team, "people": team.members.order_by("username"), "roles": roles}
    return render(request, "accounts/team.html", context)


@login_required
@require_POST
def change_team(request: HttpRequest, name: str) -> HttpResponse:
    """``do``: add or remove (with ``username``), or delete."""
    me = _admin(request)
    team = get_object_or_404(Team, name=name)
    do, username = request.POST.get("do", ""), request.POST.get("username", "").strip()
    try:
        if do == "add":
            teams.add(team=team, by=me, username=username)
            messages.success(request, f"{username} is in {name}.")
        elif do == "remove":
            teams.remove(team=team, by=me, username=username)
            messages.success(request, f"{username} is not in {name} any more.")
        elif do == "delete":
            teams.delete(team=team, by=me)
            messages.success(request, f"There is no team {name} any more.")
            return redirect("teams")
        else:
            raise Http404
    except Refused as refusal:
        return _refused(request, refusal, reverse("team", args=[name]))
    return redirect("team", name)


def _user_page(request: HttpRequest, row: User, *, link: str = "") -> HttpResponse:
    context = {
        "row": row,
        "link": link,
        "memberships": row.memberships.select_related("project").order_by("project__slug"),
        "teams": row.teams.all(),
        "tokens": row.tokens.count(),
        "sessions": row.sessions.count(),
    }
    return _unkept(render(request, "accounts/user.html", context))


def _admin(request: HttpRequest) -> User:
    """The caller, who is an administrator; to others there is no such page."""
    user = cast(User, request.user)
    if not user.is_superuser:
        raise Http404
    return user


def _status(form: Form) -> int:
    return 400 if form.errors else 200


def _unkept(response: HttpResponse) -> HttpResponse:
    """It may hold a link that sets a password."""
    response.headers["Cache-Control"] = "no-store"
    return response


def _refused(request: HttpRequest, refusal: Refused, back: str) -> HttpResponse:
    context = {"refusal": refusal, "back": back}
    return render(request, "refused.html", context, status=refusal.status)
