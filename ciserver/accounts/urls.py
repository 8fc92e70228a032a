"""Addresses of accounts: signing in and out, one's own account and tokens, users and teams."""

from __future__ import annotations

from django.urls import path, re_path

from ciserver.accounts import people_views, views

USER = r"^users/(?P<username>[\w.+@-]+)/"

urlpatterns = [
    path("login/", views.sign_in, name="login"),
    path("logout/", views.sign_out, name="logout"),
    path("set-password/<uidb64>/<token>/", people_views.set_password, name="set-password"),
    path("tokens/", views.tokens, name="tokens"),
    path("tokens/<int:pk>/revoke/", views.revoke_token, name="revoke-token"),
    path("account/", people_views.account, name="account"),
    path("account/end-session/", people_views.end_session, name="end-session"),
    path("users/", people_views.all_users, name="users"),
    re_path(USER + r"$", people_views.one_user, name="user"),
    re_path(USER + r"change/$", people_views.change_user, name="change-user"),
    path("teams/", people_views.all_teams, name="teams"),
    path("teams/<slug:name>/", people_views.one_team, name="team"),
    path("teams/<slug:name>/change/", people_views.change_team, name="change-team"),
]
