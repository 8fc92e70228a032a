"""What the service refused, as a CliError with the command to type next."""

from __future__ import annotations

import httpx

from ciserver.cli.errors import CliError, Exit

LOG_IN = "Log in with a token from the page /tokens/: gantry login URL"
ASK = "Ask an owner of the project for the right; 'gantry whoami' tells who you are here."
ITS_LOG = "Its log is $GANTRY_HOME/logs/service/web.log on the service's machine."
OTHER_VERSION = "The client that fits is in the service's own checkout: pip install ./client"
HELP = "What each command takes: gantry COMMAND --help"
# First word of an address of the API, or the third below /projects/: what lists such things.
LISTS = {
    "artifacts": "gantry artifacts list PROJECT",
    "commands": "gantry ps PROJECT@ENV",
    "deliveries": "gantry deliveries",
    "deployments": "gantry deployments",
    "environments": "gantry status",
    "hosts": "gantry hosts list",
    "images": "gantry images",
    "inspections": "gantry pipelines",
    "jobs": "gantry pipelines",
    "members": "gantry members list PROJECT",
    "pipelines": "gantry pipelines",
    "projects": "gantry projects",
    "pull-requests": "gantry pulls list PROJECT",
    "releases": "gantry releases",
    "schedules": "gantry schedules",
    "secrets": "gantry secrets list PROJECT",
    "sessions": "gantry account sessions",
    "teams": "gantry teams list",
    "tokens": "gantry tokens list",
    "users": "gantry users list",
    "webhooks": "gantry webhooks list PROJECT",
}


def refusal(answer: httpx.Response) -> CliError:
    """The error of an answer with a status of 400 or more."""
    status = answer.status_code
    try:
        document = answer.json()
        sentence, hint = str(document["detail"]), str(document.get("hint", ""))
        code = str(document.get("code", ""))
        for field, errors in dict(document.get("errors") or {}).items():
            words = errors if isinstance(errors, list) else [errors]
            sentence += f" {field}: {' '.join(map(str, words))}"
    except (ValueError, KeyError, TypeError):
        sentence, hint = f"The service answered {status} {answer.reason_phrase}.", ""
        code = ""
        if status == httpx.codes.NOT_FOUND:  # Gantry says what it has not
            where = f"{answer.url.scheme}://{answer.url.netloc.decode()}"
            sentence = f"{where} has no {answer.url.path}: it is not Gantry, or an older one."
            hint = OTHER_VERSION
    exit_code = _exit_code(status)
    hint = _ours(status, code, answer.url.path) or hint or _at_last(exit_code)
    return CliError(sentence, next_step=hint, exit_code=exit_code, code=code)


def _exit_code(status: int) -> Exit:
    if status in {401, 403}:
        return Exit.NOT_ALLOWED
    return Exit.REFUSED if status < httpx.codes.INTERNAL_SERVER_ERROR else Exit.UNREACHABLE


def _ours(status: int, code: str, path: str) -> str:
    """The command that is the next step where the service can name no more than an address."""
    if status == httpx.codes.UNAUTHORIZED:
        return LOG_IN
    if code in {"permission-denied", "invalid", "method-not-allowed"}:
        return ASK if code == "permission-denied" else HELP
    if code == "not-found":
        return f"See what there is: {_list_of(path)}"
    return ""


def _list_of(path: str) -> str:
    kind, *rest = path.partition("/api/v1/")[2].strip("/").split("/")
    if kind in {"projects", "environments", "me"} and rest[1:] and rest[1] in LISTS:
        kind = rest[1]
    return LISTS.get(kind, LISTS["projects"])


def _at_last(exit_code: Exit) -> str:
    return {Exit.NOT_ALLOWED: ASK, Exit.UNREACHABLE: ITS_LOG}.get(exit_code, HELP)
