"""The command line's table: one row per command, in the order in which one meets them."""

from __future__ import annotations

from typing import Annotated

import typer

from ciserver import __version__
from ciserver.cli import (
    account,
    artifacts,
    cases,
    completion,
    coverage,
    daytwo,
    deliveries,
    domains,
    ending,
    environments,
    history,
    hook_secret,
    hosts,
    images,
    inspecting,
    ledger,
    lint,
    local,
    logs,
    look,
    members,
    moving,
    opening,
    places,
    policy,
    projects,
    promotions,
    pulls,
    repository,
    run,
    secrets,
    session,
    starts,
    statuses,
    summary,
    teams,
    tokens,
    users,
    webhooks,
)

EPILOG = (
    "Exit codes: 0 done · 1 a pipeline or deployment failed · 2 wrong usage · 3 not allowed ·"
    " 4 refused or not there · 5 the service cannot be reached."
)

app = typer.Typer(
    name="gantry",
    help="Push a commit; one sealed image is built, tested and moved, unopened, to production.",
    epilog=EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"gantry {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Say which it is."),
    ] = False,
) -> None:
    """Push a commit; one sealed image is built, tested and moved, unopened, to production."""


THIS_MACHINE, WHO, WHAT, DO = "This machine (as root)", "Who you are", "Look", "Do"

# Their options are told by the programs behind them.
_passed_on = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}

app.command("demo", rich_help_panel=THIS_MACHINE, context_settings=_passed_on)(local.demo)
app.command("up", rich_help_panel=THIS_MACHINE, context_settings=_passed_on)(local.up)
app.command("test", rich_help_panel=THIS_MACHINE, context_settings=_passed_on)(local.test)
app.command("admin", rich_help_panel=THIS_MACHINE, context_settings=_passed_on)(local.admin)
app.command("collect", rich_help_panel=THIS_MACHINE, context_settings=_passed_on)(local.collect)
app.command("base", rich_help_panel=THIS_MACHINE, context_settings=_passed_on)(local.base)
app.command("login", rich_help_panel=WHO)(session.login)
app.command("whoami", rich_help_panel=WHO)(session.whoami)
app.command("completion", rich_help_panel=WHO)(completion.completion)
app.add_typer(tokens.app, name="tokens", rich_help_panel=WHO)
app.add_typer(account.app, name="account", rich_help_panel=WHO)
app.add_typer(members.app, name="members", rich_help_panel=WHO)
app.add_typer(teams.app, name="teams", rich_help_panel=WHO)
app.add_typer(users.app, name="users", rich_help_panel=WHO)
app.command("status", rich_help_panel=WHAT)(look.status)
app.command("projects", rich_help_panel=WHAT)(look.projects)
app.command("project", rich_help_panel=WHAT)(projects.project)
app.command("pipelines", rich_help_panel=WHAT)(look.pipelines)
app.command("pipeline", rich_help_panel=WHAT)(summary.pipeline)
app.command("logs", rich_help_panel=WHAT)(logs.logs)
app.command("tests", rich_help_panel=WHAT)(cases.tests)
app.command("coverage", rich_help_panel=WHAT)(coverage.coverage)
app.command("releases", rich_help_panel=WHAT)(look.releases)
app.command("deployments", rich_help_panel=WHAT)(history.deployments)
app.command("deployment", rich_help_panel=WHAT)(history.deployment)
app.add_typer(artifacts.app, name="artifacts", rich_help_panel=WHAT)
app.command("schedules", rich_help_panel=WHAT)(starts.schedules)
app.command("images", rich_help_panel=WHAT)(images.images)
app.command("image", rich_help_panel=WHAT)(images.image)
app.command("find", rich_help_panel=WHAT)(images.find)
app.command("deliveries", rich_help_panel=WHAT)(ledger.deliveries)
app.command("delivery", rich_help_panel=WHAT)(ledger.delivery)
app.command("lint", rich_help_panel=WHAT)(lint.lint)
app.command("ps", rich_help_panel=WHAT)(daytwo.ps)
app.command("attach", rich_help_panel=WHAT)(daytwo.attach)
app.command("env", rich_help_panel=WHAT)(environments.env)
app.command("policy", rich_help_panel=WHAT)(policy.policy)
app.command("audit", rich_help_panel=WHAT)(places.audit)
app.command("open", rich_help_panel=WHAT)(opening.open_page)
app.command("new", rich_help_panel=DO)(deliveries.new)
app.command("new-env", rich_help_panel=DO)(environments.new_env)
app.command("archive", rich_help_panel=DO)(ending.archive)
app.command("restore", rich_help_panel=DO)(ending.restore)
app.command("delete", rich_help_panel=DO)(ending.delete)
app.command("promote", rich_help_panel=DO)(deliveries.promote)
app.command("rollback", rich_help_panel=DO)(deliveries.rollback)
app.command("approve", rich_help_panel=DO)(promotions.approve)
app.command("reject", rich_help_panel=DO)(promotions.reject)
app.command("stop-line", rich_help_panel=DO)(promotions.stop_line)
app.command("resume-line", rich_help_panel=DO)(promotions.resume_line)
app.command("start", rich_help_panel=DO)(starts.start)
app.command("stop", rich_help_panel=DO)(daytwo.stop)
app.command("restart", rich_help_panel=DO)(daytwo.restart)
app.command("move", rich_help_panel=DO)(moving.move)
app.command("exec", rich_help_panel=DO)(daytwo.execute)
app.command("cp", rich_help_panel=DO)(daytwo.cp)
app.command("rerun", rich_help_panel=DO)(deliveries.rerun)
app.command("redeliver", rich_help_panel=DO)(ledger.redeliver)
app.command("cancel", rich_help_panel=DO)(deliveries.cancel)
app.command("domains", rich_help_panel=DO)(domains.domains)
app.add_typer(hosts.app, name="hosts", rich_help_panel=DO)
app.command("inspect", rich_help_panel=DO)(inspecting.inspect)
app.command("run", rich_help_panel=DO)(run.run)
app.add_typer(secrets.app, name="secrets", rich_help_panel=DO)
app.add_typer(hook_secret.app, name="hook-secret", rich_help_panel=DO)
app.add_typer(pulls.app, name="pulls", rich_help_panel=DO)
app.add_typer(repository.app, name="repository", rich_help_panel=DO)
app.add_typer(statuses.app, name="statuses", rich_help_panel=DO)
app.add_typer(webhooks.app, name="webhooks", rich_help_panel=DO)
