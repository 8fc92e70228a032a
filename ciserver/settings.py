"""Django's settings, derived from ciserver.config."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from ciserver.config import Config, ConfigError
from ciserver.lib import logs

BASE_DIR = Path(__file__).resolve().parent.parent
GANTRY = Config.from_env()


def _secret_key() -> str:
    if key := os.environ.get("GANTRY_SECRET_KEY"):
        return key
    path = GANTRY.keys / "secret_key"
    try:
        return path.read_text().strip()
    except OSError as error:
        raise ConfigError(
            f"No secret key: {path} cannot be read ({error.strerror})."
            " Start with './gantry up', which makes it, or set GANTRY_SECRET_KEY."
        ) from error


def _database(url: str) -> dict[str, Any]:
    parts = urlsplit(url)
    if parts.scheme == "sqlite":
        return {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": unquote(parts.path),
            "OPTIONS": {
                # Deferred transactions fail with "database is locked" as soon as two write.
                "transaction_mode": "IMMEDIATE",
                "timeout": 20,
                # FULL: what a forge was told is taken must outlive a power cut, too.
                "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;",
            },
            # Opening one and telling it the above costs more than a webhook's own statements.
            "CONN_MAX_AGE": 60,
            "TEST": {"NAME": os.environ.get("GANTRY_TEST_DATABASE")},
        }
    if parts.scheme in {"postgres", "postgresql"}:
        return {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": unquote(parts.path.lstrip("/")),
            "USER": unquote(parts.username or ""),
            "PASSWORD": unquote(parts.password or ""),
            "HOST": parts.hostname or "",
            "PORT": str(parts.port or ""),
            "CONN_MAX_AGE": 60,
            "CONN_HEALTH_CHECKS": True,
            # A database machine that is gone without a word is noticed in seconds, not in the
            # quarter of an hour that TCP gives it (libpq's words; the last one in milliseconds).
            "OPTIONS": {
                "connect_timeout": 3,
                "keepalives_idle": 10,
                "keepalives_interval": 5,
                "keepalives_count": 3,
                "tcp_user_timeout": 20_000,
            },
        }
    raise ConfigError(f"GANTRY_DATABASE_URL must be sqlite:///FILE or postgres://…, not {url!r}.")


SECRET_KEY = _secret_key()
DEBUG = GANTRY.debug
ALLOWED_HOSTS = ["*"] if DEBUG else [urlsplit(GANTRY.url).hostname or "", "127.0.0.1", "localhost"]
CSRF_TRUSTED_ORIGINS = [GANTRY.url]
USE_X_FORWARDED_HOST = False

INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.humanize",
    "rest_framework",
    "drf_spectacular",
    "ciserver.lib",
    "ciserver.accounts",
    "ciserver.projects",
    "ciserver.repositories",
    "ciserver.notifications",
    "ciserver.pipelines",
    "ciserver.releases",
    "ciserver.webhooks",
    "ciserver.dashboard",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "ciserver.lib.http.FinishPages",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "ciserver.urls"
ASGI_APPLICATION = "ciserver.asgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    }
]

DATABASES = {"default": _database(GANTRY.database_url)}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

AUTH_USER_MODEL = "accounts.User"
AUTH_PASSWORD_VALIDATORS = [
    {
        "NAME": "django.contrib.auth.password_validation.MinimumLengthValidator",
        "OPTIONS": {"min_length": 12},
    },
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "matrix"
LOGOUT_REDIRECT_URL = "login"
SESSION_ENGINE = "ciserver.accounts.sessions"
SESSION_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = GANTRY.url.startswith("https://")
SESSION_COOKIE_NAME = "gantry_session"
CSRF_COOKIE_NAME = "gantry_csrf"
X_FRAME_OPTIONS = "DENY"
SECURE_REFERRER_POLICY = "same-origin"

LANGUAGE_CODE = "en"
USE_I18N = False
USE_TZ = True
TIME_ZONE = "UTC"

STATIC_URL = "static/"
STATICFILES_DIRS = [BASE_DIR / "ciserver" / "static"]
STATIC_ROOT = GANTRY.home / "static"
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {
        "BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"
        if DEBUG
        else "django.contrib.staticfiles.storage.ManifestStaticFilesStorage"
    },
}

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "ciserver.accounts.authentication.TokenAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.JSONParser"],
    "DEFAULT_SCHEMA_CLASS": "ciserver.lib.openapi.Schema",
    "DEFAULT_PAGINATION_CLASS": "ciserver.lib.pagination.NewestFirst",
    "EXCEPTION_HANDLER": "ciserver.lib.exception_handler.exception_handler",
    "PAGE_SIZE": 50,
    "UNAUTHENTICATED_USER": "django.contrib.auth.models.AnonymousUser",
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Gantry",
    "VERSION": "1",
    "OAS_VERSION": "3.1.0",
    "SERVE_INCLUDE_SCHEMA": False,
    "SCHEMA_PATH_PREFIX": "/api/v1",
    "DESCRIPTION": "Everything that a page can do. Lists go on at `next`, by cursor.",
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "ciserver.lib.openapi.complete",
    ],
    "ENUM_NAME_OVERRIDES": {
        "PipelineState": "ciserver.pipelines.models.State",
        "DeploymentState": "ciserver.releases.models.DeploymentState",
        "RoleName": ("viewer", "developer", "maintainer", "owner"),
    },
}

# The broker only wakes workers: rows are the queue of record, so nothing may wait on it for long.
CELERY_BROKER_URL = GANTRY.redis_url.replace("unix://", "redis+socket://", 1)
CELERY_TASK_DEFAULT_QUEUE = "default"
# A build may take hours: what is short and waited for has processes of its own. Those must share
# the builders' PID namespace, since tidy asks whether the process that owns a thing still lives.
CELERY_TASK_ROUTES = {
    "ciserver.releases.tasks.deploy": {"queue": "deployments"},
    "ciserver.releases.tasks.visit_host": {"queue": "deployments"},
    "ciserver.releases.tasks.*": {"queue": "chores"},
    "ciserver.pipelines.tasks.tidy": {"queue": "chores"},
    "ciserver.pipelines.tasks.inspect": {"queue": "chores"},
    # Git over the network, whose other end may be slow: neither builds nor deployments wait.
    "ciserver.webhooks.tasks.*": {"queue": "planning"},
    "ciserver.notifications.tasks.*": {"queue": "planning"},
    "ciserver.dashboard.tasks.*": {"queue": "planning"},  # reads from the registry
    "ciserver.repositories.tasks.*": {"queue": "planning"},  # packing may take minutes
}
CELERY_TASK_SERIALIZER = "json"
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_ACKS_LATE = True
CELERY_TASK_REJECT_ON_WORKER_LOST = True
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_TRANSPORT_OPTIONS = {
    "visibility_timeout": 24 * 3600,
    "socket_connect_timeout": 2,
    "socket_timeout": 5,
}
CELERY_TASK_PUBLISH_RETRY_POLICY = {"max_retries": 1, "interval_start": 0, "interval_max": 0.2}

# What was promised in a transaction, and the task that keeps it (see ciserver.lib.outbox).
OUTBOX_TASKS = {
    "delivery.accepted": "ciserver.webhooks.tasks.plan",
    "pipeline.queued": "ciserver.pipelines.tasks.run",
    "inspection.asked": "ciserver.pipelines.tasks.inspect",
    "pipeline.passed": "ciserver.releases.tasks.release",
    "deployment.queued": "ciserver.releases.tasks.deploy",
    "host.asked": "ciserver.releases.tasks.visit_host",
    "environment.routes": "ciserver.releases.tasks.restore_environment",
    "image.pushed": "ciserver.dashboard.tasks.read_images",
    "environment.remove": "ciserver.releases.tasks.remove_environment",
    "project.delete": "ciserver.releases.tasks.delete_project",
    "environment.deployed": "ciserver.releases.tasks.prune_images",
}
# Topics whose task takes whatever is first in line, whichever object woke it.
OUTBOX_SHARED = {"pipeline.queued"}

LOGGING = logs.LOGGING
