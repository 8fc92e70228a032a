"""The commented example is the manual, so it must be true."""

from __future__ import annotations

from pathlib import Path

import yaml

from ciserver.pipelines.definition import Build, Definition, NamedBuild, Test, When, parse
from ciserver.pipelines.service_definition import Healthcheck, Service

EXAMPLE = Path(__file__).resolve().parents[3] / "docs" / "gantry.yml"


def test_the_example_is_understood_and_names_every_key() -> None:
    text = EXAMPLE.read_text()
    parse(text)
    data = yaml.safe_load(text)
    several = {"images", "deploy"}  # not beside build: their lines are commented out
    assert set(data) == set(Definition.model_fields) - several
    assert set(data["build"]) == set(Build.model_fields)
    assert all(f"\n# {key}:" in text for key in several)
    assert set(data["services"]["db"]) == set(Service.model_fields) - {"stage"}
    kinds = {key for key in Healthcheck.model_fields if f"# {key}:" in text}
    assert set(data["services"]["db"]["healthcheck"]) | kinds == set(Healthcheck.model_fields)
    assert {key for test in data["tests"].values() for key in test} == set(Test.model_fields)
    keys = {field.alias or name for name, field in When.model_fields.items()}
    assert set(data["tests"]["browser"]["when"]) == keys


def test_the_example_of_several_images_is_understood() -> None:
    lines = EXAMPLE.read_text().splitlines()
    start = lines.index("# images:")
    text = "\n".join(line.removeprefix("# ") for line in lines[start : start + 5])
    definition = parse(text)
    assert definition.deployed == "web"
    assert definition.images is not None
    assert not definition.images["browser"].release
    assert "release" in NamedBuild.model_fields


def test_the_defaults_that_the_example_tells_are_the_defaults() -> None:
    test = Test()
    assert (test.memory, test.cpus, test.pids, test.timeout) == (512 * 1024**2, 1, 256, 600)
    service = Service()
    assert (service.memory, service.cpus, service.pids) == (test.memory, test.cpus, test.pids)
    check = Healthcheck()
    assert (check.interval, check.timeout, check.longest) == (1, 5, 60)
