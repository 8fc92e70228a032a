"""Commands that change something: new, promote, rollback, cancel."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from ciserver.cli import daytwo, output, promotions, settings
from ciserver.cli.client import Client, Row
from ciserver.cli.errors import CliError, Exit
from ciserver.cli.look import find_pipeline
from ciserver.cli.options import AsJson, EnvironmentName, Project, ReleaseName
from ciserver.cli.output import print_json

NoWait = Annotated[bool, typer.Option("--no-wait", help="Do not wait for the result.")]

UNFINISHED = {"queued", "running"}
WAITING = "waiting"
PREVIOUS = "previous"


def new(
    project: Project,
    environment: Annotated[
        list[str] | None,
        typer.Option(
            "--env",
            "-e",
            help="An environment; NAME:auto deploys by itself. In order.",
            show_default="qa:auto, prod",
        ),
    ] = None,
    source: Annotated[
        str, typer.Option("--from", help="A repository elsewhere: https://… or git@HOST:PATH.")
    ] = "",
    description: Annotated[str, typer.Option(help="A line for the pages.")] = "",
    as_json: AsJson = False,
) -> None:
    """Make a project, ready for a git push or a webhook.

    With its environments on this machine.
    """
    with Client(settings.load()) as client:
        made = client.post("/projects/", slug=project, description=description, clone_url=source)
        for word in environment or ["qa:auto", "prod"]:
            name, _, auto = word.partition(":")
            client.post("/environments/", project=project, name=name, auto=auto == "auto")
    if as_json:
        print_json(made)
        return
    output.console.print(f"Made {project}: {made['page']}")
    if source:
        output.next_step(
            f"Next: gantry hook-secret renew {project}, and give it to the forge\n"
            f"      private: gantry repository key {project} --new"
        )
        return
    output.next_step(
        f"Next: git push {made['git_url']} HEAD:main\n"
        "      (user: your name here, password: your token)"
    )


def promote(
    project: Project,
    release: ReleaseName,
    environment: EnvironmentName,
    no_wait: NoWait = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Tell what it would change, and do nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Put a release into the next environment: the same digest.

    Nothing is rebuilt.
    """
    if dry_run:
        promotions.preview(project, release, environment, as_json=as_json)
        return
    _deploy("promote", project, release, environment, wait=not no_wait, as_json=as_json)


def rollback(
    project: Project,
    release: ReleaseName,
    environment: EnvironmentName,
    no_wait: NoWait = False,
    as_json: AsJson = False,
) -> None:
    """Put an environment back to a release that ran there before.

    ``previous``: the last one.
    """
    _deploy("roll-back", project, release, environment, wait=not no_wait, as_json=as_json)


def cancel(
    project: Project,
    number: Annotated[int, typer.Argument(help="A pipeline's number; the newest without.")] = 0,
    reason: Annotated[
        str, typer.Option("--reason", "-m", help="Of PROJECT@ENV: why; everybody can read it.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """End a pipeline that has not ended yet; or what is on its way to PROJECT@ENV.

    What a deployment began is withdrawn: what served goes on serving.
    """
    if daytwo.is_place(project):
        promotions.cancel(project, reason, as_json=as_json)
        return
    with Client(settings.load()) as client:
        pipeline = find_pipeline(client, project, number)
        row = client.post(f"/pipelines/{pipeline['id']}/cancel/")
    if as_json:
        print_json(row)
    else:
        output.console.print(f"Pipeline #{row['number']} of {project} is being cancelled.")


def rerun(
    project: Project,
    number: Annotated[int, typer.Argument(help="A pipeline's number; the newest without.")] = 0,
    failed: Annotated[bool, typer.Option("--failed", help="Keep the tests that passed.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run a pipeline that failed or was cancelled once more.

    At the same commit.
    """
    with Client(settings.load()) as client:
        pipeline = find_pipeline(client, project, number)
        row = client.post(f"/pipelines/{pipeline['id']}/run-again/", only_failed=failed)
    if as_json:
        print_json(row)
    else:
        output.console.print(f"Pipeline #{row['number']} of {project} is being run again.")
        output.next_step(f"Next: gantry logs {project} {row['number']} --follow")


def _deploy(
    verb: str, project: str, release: str, environment: str, *, wait: bool, as_json: bool
) -> None:
    with Client(settings.load()) as client:
        if verb == "roll-back" and release == PREVIOUS:
            release = promotions.previous(client, project, environment)
        row = promotions.find_release(client, project, release)
        deployment = client.post(f"/releases/{row['id']}/{verb}/", environment=environment)
        if wait:
            deployment = wait_for(client, deployment, quiet=as_json)
    if as_json:
        print_json(deployment)
    if deployment["state"] == WAITING:
        if not as_json:
            promotions.print_waiting(deployment)
        return
    if deployment["state"] not in {*UNFINISHED, "succeeded"}:
        raise CliError(
            f"{release} to {environment} {deployment['state']}: {deployment['reason']}",
            next_step=f"What ran in {environment} before still serves. Its page: {row['page']}",
            exit_code=Exit.BAD_RESULT,
        )
    if not as_json:
        words = "runs in" if deployment["state"] == "succeeded" else "is on its way to"
        output.console.print(f"{release} {words} {environment}  ({row['digest']})")


def wait_for(client: Client, deployment: Row, *, quiet: bool) -> Row:
    """``deployment`` when it has ended, or waits for something. Its steps are shown meanwhile."""
    shown, told = 0, ""
    while True:
        row = client.get(f"/deployments/{deployment['id']}/")
        for step in row["steps"][shown:] if not quiet else []:
            output.console.print(f"  {step['host']}: {step['name']}")
        shown = len(row["steps"])
        if row["state"] == "queued" and row["reason"] != told and not quiet:
            told = row["reason"]
            output.console.print(f"  {told}", soft_wrap=True)
        if row["state"] not in UNFINISHED:
            return row
        time.sleep(0.3)
