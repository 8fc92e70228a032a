"""The commented example is the manual, so it must be true."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

from ciserver.pipelines.definition import (
    Build,
    Definition,
    DefinitionError,
    NamedBuild,
    Test,
    When,
    parse,
    schema,
)
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


SHORT = [
    "tests: {a: {cache: {key: k, paths: x}}}",
    "tests: {a: {cache: [{key: {files: x}, paths: [x]}]}}",
    "concurrency: x",
    "tests: {a: {needs: b}, b: {command: [a, 1, 2.5]}}",
    "tests: {a: {timeout: 90, memory: 536870912, silence: 1.5 h, disk: 1.5GB}}",
    "tests: {a: {services: {db: }}}\nservices: {db: {image: x}}",
    "services: {db: {image: x, depends_on: c}, c: {depends_on: [d]}, d: {depends_on: {}}}",
    "schedule: [{cron: '0 0 * * *', inputs: {x: 1}}]\ninputs: {x: {type: number, default: 3}}",
    "tests: {a: {environment: [A=b], secrets: X, coverage: x, when: {event: push, branch: x}}}",
    "tests: {a: {environment: {A: , B: 1, C: true}, matrix: {D: [true, 1, 1.5, x]}}}",
    "build: {args: [A=1], secrets: [X]}",
    "tests:",
]
MISTAKES = [
    "tets: {}",
    "tests: {a: {comand: x}}",
    "tests: {Unit!: {}}",
    "tests: {a: {memory: lots}}",
    "tests: {a: {timeout: soon}}",
    "tests: {a: {network: host}}",
    "tests: {a: {when: {event: pusch}}}",
    "tests: {a: {command: []}}",
    "tests: {a: {cache: {key: {fils: x}, paths: [x]}}}",
    "services: {db: {healthcheck: {tcp: 0}}}",
    "services: {db: {depends_on: {c: {condition: healthy}}}}",
    "images: {web-: {}}",
    "inputs: {a: {type: strnig}}",
    "concurrency: [x]",
]


@pytest.mark.parametrize("folder", ["hello", "python-postgres", "static-site", "two-images"])
def test_the_published_schema_takes_the_manual_and_the_examples(folder: str) -> None:
    validator = Draft202012Validator(schema())
    validator.check_schema(schema())
    for file in (EXAMPLE, EXAMPLE.parents[1] / "examples" / folder / "gantry.yml"):
        assert list(validator.iter_errors(yaml.safe_load(file.read_text()))) == []


@pytest.mark.parametrize("text", SHORT)
def test_the_published_schema_takes_what_is_taken(text: str) -> None:
    parse(text)
    assert list(Draft202012Validator(schema()).iter_errors(yaml.safe_load(text))) == []


@pytest.mark.parametrize("text", MISTAKES)
def test_the_published_schema_refuses_what_is_refused(text: str) -> None:
    with pytest.raises(DefinitionError):
        parse(text)
    assert not Draft202012Validator(schema()).is_valid(yaml.safe_load(text))
