"""One commit's way: pushed, built, tested, released, in qa, promoted, in production."""

from __future__ import annotations

import subprocess
import time
from dataclasses import dataclass

from rich.console import Console
from rich.markup import escape

from ciserver.cli.client import Client, Row
from ciserver.cli.output import short
from ciserver.config import Config
from ciserver.ops.demo.doing import moving
from ciserver.ops.demo.follow import follow
from ciserver.ops.demo.repository import Repository
from ciserver.ops.demo.waiting import wait_for
from ciserver.ops.errors import OpsError

DEPLOYED_WITHIN = 900.0  # seconds; a deployment ends by itself before, whatever it waits for


@dataclass(frozen=True, slots=True, kw_only=True)
class Journey:
    """What one commit did and cost. ``pipeline`` and deployments are the API's own rows."""

    commit: str
    release: str
    pipeline: Row
    qa: Row
    prod: Row
    production_url: str
    seconds_to_green: float
    seconds_to_production: float


def travel(api: Client, repository: Repository, config: Config, console: Console) -> Journey:
    """Commits, pushes, and follows the commit to production. Raises OpsError if it stops."""
    commit = repository.commit()
    console.rule(f"[bold]{escape(repository.title)}[/]  [dim]{commit[:8]}[/]", align="left")
    console.print("[dim]$[/] git push")
    repository.push()
    pushed = time.monotonic()
    pipeline = follow(api, console, _pipeline_of(api, commit))
    green = time.monotonic()
    release = _release_of(api, commit)
    console.print(f"[green]released[/] {release['name']}, digest {short(release['digest'])}")
    qa = _arrival(api, release, "qa", console)
    asked = api.post(f"/releases/{release['id']}/promote/", environment="prod")
    prod = _arrival(api, release, "prod", console, deployment=asked)
    url = _production_url(api)
    _check_production(url, commit, console)
    return Journey(
        commit=commit,
        release=str(release["name"]),
        pipeline=pipeline,
        qa=qa,
        prod=prod,
        production_url=url,
        seconds_to_green=green - pushed,
        seconds_to_production=time.monotonic() - pushed,
    )


def _pipeline_of(api: Client, commit: str) -> Row:
    def look() -> Row | None:
        rows = api.rows("/pipelines/", project="hello", commit=commit)
        return rows[0] if rows else None

    return wait_for(look, what=f"A pipeline for {commit[:8]}", pause=0.03, log="planner")


def _release_of(api: Client, commit: str) -> Row:
    def look() -> Row | None:
        rows = api.rows("/releases/", project="hello")
        return next((row for row in rows if row["commit"] == commit), None)

    return wait_for(look, what=f"A release of {commit[:8]}")


def _arrival(
    api: Client, release: Row, environment: str, console: Console, *, deployment: Row | None = None
) -> Row:
    """Waits for the deployment's end and says how it went."""
    began = time.monotonic()

    def find() -> Row | None:
        rows = api.rows("/deployments/", project="hello", environment=environment)
        return next((row for row in rows if row["release"] == release["id"]), None)

    title = f"{release['name']} to {environment}"
    with moving(console, title) as tell:
        what = f"The deployment to {environment}"
        found = deployment or wait_for(find, what=what, log="deployer")

        def ended() -> Row | None:
            row = api.get(f"/deployments/{found['id']}/")
            if row["steps"]:
                tell(row["steps"][-1]["name"])
            return None if row["state"] in {"queued", "running"} else row

        row = wait_for(ended, what=what, seconds=DEPLOYED_WITHIN, log="deployer")
    if row["state"] != "succeeded":
        raise OpsError(
            f"The deployment of {release['name']} to {environment} {row['state']}: {row['reason']}",
            next_step="The release's page shows each step.",
        )
    took = time.monotonic() - began
    console.print(f"[green]{environment}[/] runs {release['name']}  [dim]{took:.1f} s[/]")
    return row


def _production_url(api: Client) -> str:
    rows = api.rows("/environments/", project="hello")
    return next(str(row["address"]) for row in rows if row["name"] == "prod")


def _check_production(url: str, commit: str, console: Console) -> None:
    command = ["curl", "--silent", "--show-error", "--noproxy", "*", "--max-time", "10", url]
    shown = subprocess.run(command, capture_output=True, text=True, check=False)
    console.print(f"[dim]$[/] curl {url}")
    console.print(escape((shown.stdout or shown.stderr).strip()), style="bold")
    if commit not in shown.stdout:
        raise OpsError(
            f"Production does not show the commit {commit[:8]} that was pushed.",
            next_step=f"Ask it yourself: curl {url}",
        )
