"""The commented example is the manual, so it must be true."""

from __future__ import annotations

from pathlib import Path

import yaml

from ciserver.pipelines.definition import Build, Definition, Test, When, parse

EXAMPLE = Path(__file__).resolve().parents[3] / "docs" / "gantry.yml"


def test_the_example_is_understood_and_names_every_key() -> None:
    text = EXAMPLE.read_text()
    parse(text)
    data = yaml.safe_load(text)
    assert set(data) == set(Definition.model_fields)
    assert set(data["build"]) == set(Build.model_fields)
    assert {key for test in data["tests"].values() for key in test} == set(Test.model_fields)
    keys = {field.alias or name for name, field in When.model_fields.items()}
    assert set(data["tests"]["browser"]["when"]) == keys


def test_the_defaults_that_the_example_tells_are_the_defaults() -> None:
    test = Test()
    assert (test.memory, test.cpus, test.pids, test.timeout) == (512 * 1024**2, 1, 256, 600)
