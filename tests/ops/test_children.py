"""The table of children follows the settings."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import yaml
from celery import Celery
from django.conf import settings

from ciserver.config import Config
from ciserver.ops.children import Child, children_of, registry_settings
from ciserver.ops.launch import CHECKOUT


def names(config: Config) -> list[str]:
    return [child.name for child in children_of(config)]


def child(config: Config, name: str) -> Child:
    return next(child for child in children_of(config) if child.name == name)


def test_everything_runs_here_by_default(config: Config) -> None:
    workers = ["worker", "deployer", "chores", "planner"]
    others = ["redis", "registry", "caddy", "web"]
    assert names(config) == [*others, *workers, "scheduler", "watcher", "web-2"]


def test_a_redis_elsewhere_is_not_started_here(config: Config) -> None:
    assert "redis" not in names(replace(config, redis_url="redis://queue.example:6379/0"))


def test_a_registry_elsewhere_is_not_started_here(config: Config) -> None:
    assert "registry" not in names(replace(config, registry="registry.example:443"))


def test_only_the_workers_and_the_proxy_are_root(config: Config) -> None:
    root = {child.name for child in children_of(config) if not child.as_service_user}
    assert root == {"worker", "deployer", "chores", "planner", "caddy", "watcher"}


def test_deployments_never_wait_for_builds(config: Config) -> None:
    queues = {}
    for name in ("worker", "deployer", "chores", "planner"):
        command = child(config, name).command
        queues[name] = command[command.index("-Q") + 1]
        assert command[command.index("-n") + 1] == f"{name}@%h"
    assert queues == {
        "worker": "default",
        "deployer": "deployments",
        "chores": "chores",
        "planner": "planning",
    }


def test_every_queue_that_tasks_are_routed_to_has_a_worker_here_and_in_the_compose_file(
    config: Config,
) -> None:
    routed = {str(route["queue"]) for route in settings.CELERY_TASK_ROUTES.values()} | {"default"}
    commands = [child.command for child in children_of(config) if "celery" in child.command]
    assert {command[command.index("-Q") + 1] for command in commands} == routed
    entry = (CHECKOUT / "compose" / "entry.sh").read_text()
    listed = re.search(r"-Q (\S+)", entry)
    assert listed
    assert set(listed[1].split(",")) == routed


def test_the_compose_file_has_six_services_and_in_them_all_that_runs_here(config: Config) -> None:
    file = yaml.safe_load((CHECKOUT / "compose" / "compose.yaml").read_text())
    services = file["services"]
    once, named = {"setup"}, {"web", "worker", "scheduler", "postgres", "redis", "registry"}
    assert set(services) == once | named
    entry = (CHECKOUT / "compose" / "entry.sh").read_text()
    roles = set(re.findall(r"^    (\w+)\)", entry, re.MULTILINE))
    assert {name for name, row in services.items() if row.get("command") == [name]} == roles
    for one in children_of(config):
        if one.command[0] == "python":  # the others have images of their own
            words = " ".join(one.command[1:])
            program = re.match(r"manage\.py \w+|-m celery|-m ciserver\.\w+", words)
            assert program and f"python {program[0]}" in entry, one.name


def test_a_deployment_that_hangs_holds_up_no_other_and_no_release(config: Config) -> None:
    command = child(config, "deployer").command
    assert command[command.index("--autoscale") + 1] == "16,2"
    # Two looks and a restoring, each as long as a host that hangs, leave slots for releases.
    chores = child(config, "chores").command
    assert chores[chores.index("--autoscale") + 1] == "6,2"
    routes = Celery(task_routes=settings.CELERY_TASK_ROUTES).amqp.router
    for task, queue in (("deploy", "deployments"), ("release", "chores"), ("look", "chores")):
        assert routes.route({}, f"ciserver.releases.tasks.{task}")["queue"].name == queue


def test_redis_has_no_tcp_port_and_keeps_what_it_is_told(config: Config) -> None:
    words = list(child(config, "redis").command)
    settings = dict(zip(words[1::2], words[2::2], strict=True))
    assert settings["--port"] == "0"
    assert settings["--appendonly"] == "yes"
    assert settings["--unixsocketperm"] == "770"


def test_the_registry_asks_us_for_tokens(config: Config) -> None:
    auth = registry_settings(config)["auth"]
    assert auth == {
        "token": {
            "realm": f"{config.url}/api/v1/registry/token",
            "service": "gantry-registry",
            "issuer": "gantry",
            "rootcertbundle": str(config.keys / "registry.crt"),
        }
    }


def test_what_others_need_starts_before_them(config: Config) -> None:
    stages = {child.name: child.stage for child in children_of(config)}
    assert max(stages["redis"], stages["registry"]) < min(stages["web"], stages["worker"])


def test_every_web_process_takes_from_one_socket_and_the_first_is_waited_for(
    config: Config,
) -> None:
    webs = [one for one in children_of(replace(config, web_processes=3)) if "web" in one.name]
    assert [one.name for one in webs] == ["web", "web-2", "web-3"]
    assert {one.listen for one in webs} == {(config.bind, config.port)}
    assert [one.stage for one in webs] == [1, 2, 2]
    [alone] = [one for one in children_of(replace(config, web_processes=1)) if "web" in one.name]
    assert alone.name == "web"


def test_only_who_reads_and_keeps_logs_gets_the_keys_of_object_storage(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "an-id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-key")
    monkeypatch.delenv("AWS_SESSION_TOKEN", raising=False)
    keys = {"AWS_ACCESS_KEY_ID": "an-id", "AWS_SECRET_ACCESS_KEY": "a-key"}
    elsewhere = replace(config, log_store="s3://logs/gantry?endpoint=https://s3.example.org")
    having = {one.name for one in children_of(elsewhere) if keys.items() <= one.env.items()}
    assert having == {"web", "web-2", "worker", "chores"}
    assert not any(keys.keys() & one.env.keys() for one in children_of(config))
