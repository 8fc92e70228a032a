"""gantry.yml: what is understood, and where each mistake is said to be."""

from __future__ import annotations

import time

import pytest
import yaml
from jsonschema import Draft202012Validator

from ciserver.pipelines.definition import DefinitionError, parse, schema


def test_an_empty_file_is_the_convention() -> None:
    definition = parse("")
    assert definition.tests is None
    assert definition.build.dockerfile == "Dockerfile"


def test_compose_words_are_understood() -> None:
    test = parse(
        """
        tests:
          unit:
            stage: test
            command: ["pytest", "-q"]
            environment: ["A=1", "B=x=y"]
            memory: 256m
            cpus: 0.5
            timeout: 5m
        """
    ).tests["unit"]  # type: ignore[index]
    assert test.command == ["pytest", "-q"]
    assert test.environment == {"A": "1", "B": "x=y"}
    assert test.memory == 256 * 1024**2
    assert test.timeout == 300


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("tets: {}", "gantry.yml:1: tets", "did you mean 'tests'?"),
        ("build: {dockerfle: x}", "gantry.yml:1: build.dockerfle", "did you mean 'dockerfile'?"),
        ("tests: {unit: {zzz: 1}}", "gantry.yml:1: tests.unit.zzz", "known are image, stage"),
        ("tests: {unit: {memory: lots}}", "gantry.yml:1: tests.unit.memory", "a size such as 256m"),
        ("tests: {unit: {timeout: true}}", "gantry.yml:1: tests.unit.timeout", "a time such as"),
        ("tests: {unit: {memory: 1m}}", "gantry.yml:1: tests.unit.memory", "16m or more"),
        ("tests: {unit: {timeout: 0}}", "gantry.yml:1: tests.unit.timeout", "1s or more"),
        ("tests: {unit: {timeout: 900ms}}", "gantry.yml:1: tests.unit.timeout", "1s or more"),
        ("tests: {unit: {timeout: 3m2h}}", "gantry.yml:1: tests.unit.timeout", "such as 90s"),
        ("tests: {unit: {timeout: ''}}", "gantry.yml:1: tests.unit.timeout", "such as 90s"),
        (
            "services: {d: {healthcheck: {tcp: 1, interval: 1ms}}}",
            "gantry.yml:1: services.d.healthcheck.interval",
            "expected 0.05 or more",
        ),
        (
            "tests: {unit: {cpus: 0}}",
            "gantry.yml:1: tests.unit.cpus",
            "expected 0.01 or more, not 0",
        ),
        ("tests: {unit: {pids: 0}}", "gantry.yml:1: tests.unit.pids", "expected 2 or more, not 0"),
        ("tests: {Unit!: {}}", "gantry.yml:1: tests.Unit!", "lower-case letters"),
        ("tests: {a: {needs: [bb]}, b: {}}", "gantry.yml:1: tests.a.needs", "no test 'bb'"),
        ("tests:\n a: {needs: b}\n b: {needs: a}", "gantry.yml:2: tests.a.needs", "a -> b -> a"),
        ("tests: {a: {when: {brnch: x}}}", "gantry.yml:1: tests.a.when.brnch", "mean 'branch'"),
        (
            "tests: {a: {retries: 9}}",
            "gantry.yml:1: tests.a.retries",
            "expected 5 at the most, not 9",
        ),
        ("tests: {a: {matrix: {X: 1}}}", "gantry.yml:1: tests.a.matrix", "a list of values"),
        ("tests: {a: {matrix: {a-b: [1]}}}", "gantry.yml:1: tests.a.matrix", "become variables"),
        ("services: {db: {healthchek: {}}}", "gantry.yml:1: services.db.healthchek", "healthcheck"),
        (
            "services: {d: {healthcheck: {tpc: 1}}}",
            "gantry.yml:1: services.d.healthcheck.tpc",
            "tcp",
        ),
        (
            "services: {d: {healthcheck: {http: '65536/x'}}}",
            "gantry.yml:1: services.d.healthcheck.http",
            "expected a port from 1 to 65535, not 65536",
        ),
        (
            "services: {d: {healthcheck: {http: '0'}}}",
            "gantry.yml:1: services.d.healthcheck.http",
            "expected a port from 1 to 65535, not 0",
        ),
        (
            "tests: {a: {services: {db: {healthcheck: {tcp: 1, http: '80'}}}}}",
            "gantry.yml:1: tests.a.services.db.healthcheck",
            "one of tcp and http, not both",
        ),
        (
            "services: {db: {}}\ntests: {a: {services: [dbs]}}",
            "gantry.yml:2: tests.a.services.dbs",
            "there is no service 'dbs'; did you mean 'db'?",
        ),
        (
            "services: {a: {depends_on: b}, b: {depends_on: a}}",
            "gantry.yml:1: services.a.depends_on",
            "a -> b -> a",
        ),
        (
            "tests: {a: {services: {b: {}}, depends_on: c}}",
            "gantry.yml:1: tests.a.depends_on",
            "no service 'c'",
        ),
        ("services: {localhost: {}}", "gantry.yml:1: services", "means something else"),
        ("services: {db-: {}}", "gantry.yml:1: services", "cannot be a host's name"),
        ("images: {a: {}}\nbuild: {}", "gantry.yml:2: build", "there is no 'build'"),
        ("images: {web-: {}}", "gantry.yml:1: images.web-", "an image's name"),
        ("images: {a: {}}\ndeploy: b", "gantry.yml:2: deploy", "there is no image 'b'"),
        ("images: {a: {release: false}}", "gantry.yml:1: images", "must be released"),
        (
            "tests: {a: {image: x, stage: y}}",
            "gantry.yml:1: tests.a.stage",
            "built here has stages",
        ),
        (
            "tests: {a: {network: host}}",
            "gantry.yml:1: tests.a.network",
            "one of none, egress, not 'host'",
        ),
        ("tests: {a: {command: []}}", "gantry.yml:1: tests.a.command", "a list of words"),
        ("tests: {push: {}}", "gantry.yml:1: tests.push", "a job that Gantry adds"),
        ("- a\n- b", "gantry.yml", "expected keys such as"),
        ("a: [1,\nb: 2", "gantry.yml:2", "expected"),
        ("tests: {unit: 3}", "gantry.yml:1: tests.unit", "expected keys with values, not 3"),
        ("tests: 3", "gantry.yml:1: tests", "expected keys with values, not 3"),
        ("build: .", "gantry.yml:1: build", "expected keys with values, not '.'"),
        ("tests: {a: {user: 0}}", "gantry.yml:1: tests.a.user", "not 0: put it in quotes"),
        ("tests: {a: {pids: many}}", "gantry.yml:1: tests.a.pids", "a whole number, not 'many'"),
        ("tests: {a: {network: egres}}", "gantry.yml:1: tests.a.network", "did you mean 'egress'?"),
        ("tests: {a: {cpus: .inf}}", "gantry.yml:1: tests.a.cpus", "expected a number, not inf"),
        ("tests: {a: {when: {event: pusch}}}", "gantry.yml:1: tests.a.when.event", "mean 'push'?"),
        (
            "tests: {a: {services: {d: {}}, depends_on: {d: {condition: service_helthy}}}}",
            "gantry.yml:1: tests.a.depends_on.d.condition",
            "did you mean 'service_healthy'?",
        ),
        (
            "tests:\n a:\n  cache:\n   kee: x\n   paths: [x]",
            "gantry.yml:4: tests.a.cache.kee",
            "did you mean 'key'?",
        ),
        (
            "tests: {a: {cache: [{key: {fils: [x]}, paths: [x]}]}}",
            "gantry.yml:1: tests.a.cache.0.key.fils",
            "did you mean 'files'?",
        ),
        (
            "tests: {a: {cache: {key: 1, paths: [x]}}}",
            "gantry.yml:1: tests.a.cache.key",
            "expected a text, not 1: put it in quotes.",
        ),
        (
            "tests: {a: {cache: {key: x}}}",
            "gantry.yml:1: tests.a.cache",
            "the key 'paths' is needed here",
        ),
        (
            "services: {d: {healthcheck: {http: 'http://x'}}}",
            "gantry.yml:1: services.d.healthcheck.http",
            "PORT/PATH, such as 8080/healthz, not 'http://x'",
        ),
        (
            "tests: {a: {matrix: {A: ['a, b', a], B: [c, 'b, c']}}}",
            "gantry.yml:1: tests.a.matrix",
            "two would be called (a, b, c)",
        ),
        ("tests: {a: {matrix: {A: [1, 1]}}}", "gantry.yml:1: tests.a.matrix", "be called (1)"),
        ("tests: {a: {matrix: {A: [~]}}}", "gantry.yml:1: tests.a.matrix", "short words"),
        (
            "tests: {a: {environment: {A=B: c}}}",
            "gantry.yml:1: tests.a.environment",
            "the name of a variable, not 'A=B'",
        ),
        (
            "tests: {a: {environment: {A: [b]}}}",
            "gantry.yml:1: tests.a.environment",
            "a word or a number for A",
        ),
        ("build: {args: 3}", "gantry.yml:1: build.args", "a list of NAME=VALUE"),
        (
            "tests: {a: {artifacts: {paths: [x], expire_in: 99999d}}}",
            "gantry.yml:1: tests.a.artifacts.expire_in",
            "ten years",
        ),
        (
            f"schedule: [{{cron: '{','.join('0' * 60)} * * * *'}}]",
            "gantry.yml:1: schedule.0.cron",
            "100 letters at the most",
        ),
        ('a: 1\ntests: {a: {command: "x\\0"}}', "gantry.yml:2", "U+0000 cannot be used"),
        ("tests: \x01", "gantry.yml:1", "U+0001 cannot be used"),
        ("x: 1\ntests: {a: {command: !!binary AAEC}}", "gantry.yml:2", "a tag cannot be used"),
        (f"x: 1\ny: {'9' * 5000}", "gantry.yml:2", "a number of 100 digits"),
        ("2020-01-01: x", "gantry.yml:1: 2020-01-01", "there is no key '2020-01-01'"),
        ("tests:\n\tx: 1", "gantry.yml:2", "not by tabs"),
        ("build: {}\non: push", "gantry.yml:2: on", "there is no key 'on'; known are build"),
        ("tests:\n a:\n  1: x", "gantry.yml:3: tests.a.1", "there is no key '1'"),
        ("tests: {a: {when: {event: []}}}", "gantry.yml:1: tests.a.when.event", "at least 1"),
        ("tests: {a: {when: {branch: []}}}", "gantry.yml:1: tests.a.when.branch", "at least 1"),
        ("schedule: [{cron: '0 0 3 * * *'}]", "gantry.yml:1: schedule.0.cron", "seconds are none"),
        ("schedule: [{cron: '@daily'}]", "gantry.yml:1: schedule.0.cron", "minute, hour, day"),
        ("concurrency: ' '", "gantry.yml:1: concurrency.group", "such as ${branch}"),
        ("concurrency: 'x-${branch'", "gantry.yml:1: concurrency.group", "behind each '${'"),
        (
            "inputs: {level: {}}\nconcurrency: {group: 'x-${inputs.levle}'}",
            "gantry.yml:2: concurrency.group",
            "there is no input 'levle'; did you mean 'level'?",
        ),
        ("tests: a: b", "gantry.yml:1", "Is a quote missing"),
    ],
)
def test_a_mistake_names_its_place_and_what_was_expected(text: str, place: str, words: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        parse(text)
    assert caught.value.place == place
    assert words in caught.value.message


def test_yaml_tags_cannot_make_objects() -> None:
    with pytest.raises(DefinitionError):
        parse("!!python/object/apply:os.system ['true']")


def test_aliases_are_refused_because_a_few_of_them_unfold_without_end() -> None:
    levels = "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9))
    with pytest.raises(DefinitionError, match="alias") as caught:
        parse(f"a0: &a0 [x]\n{levels}")
    assert caught.value.place == "gantry.yml:2"


@pytest.mark.parametrize("level", ["- ", "[", "{a: ", "? ", "!!seq ["])
def test_a_hundred_thousand_levels_end_neither_the_process_nor_anybodys_patience(
    level: str,
) -> None:
    before = time.process_time()
    with pytest.raises(DefinitionError, match="more than 50 levels"):
        parse(level * (256 * 1024 // len(level)))
    assert time.process_time() - before < 2


def test_thousands_of_mistakes_are_told_by_the_first_fifty() -> None:
    before = time.process_time()
    with pytest.raises(DefinitionError) as caught:
        parse("tests:\n  a:\n    command: x\n" + "".join(f"    k{n}: 1\n" for n in range(3000)))
    with pytest.raises(DefinitionError):
        parse(f"tests: {{a: {{command: x, needs: [{', '.join(f'q{n}' for n in range(3000))}]}}}}")
    assert time.process_time() - before < 5
    assert len(caught.value.faults) == 50


def test_a_key_that_is_written_twice_is_told_at_the_second() -> None:
    with pytest.raises(DefinitionError, match="the key 'a' is written twice") as caught:
        parse("tests:\n  a: {command: x}\n  a: {command: y}\n")
    assert caught.value.place == "gantry.yml:3"


def test_tests_and_jobs_have_a_number() -> None:
    with pytest.raises(DefinitionError, match="at most 100"):
        parse("tests:\n" + "".join(f"  t{n}: {{command: x}}\n" for n in range(101)))
    matrix = "matrix: {A: [1, 2, 3, 4], B: [1, 2, 3, 4, 5, 6, 7, 8]}"
    with pytest.raises(DefinitionError, match="makes 416 jobs; 400 is the most"):
        parse("tests:\n" + "".join(f"  t{n}: {{command: x, {matrix}}}\n" for n in range(13)))


@pytest.mark.parametrize(
    "text",
    [
        "[" * 5000,
        "a: 2020-99-99",
        f"tests: {{unit: {{memory: {'9' * 400}}}}}",
        f"{'k' * 1000}: 1",
        f"tests: {{a: {{needs: [{'n' * 9999}]}}}}",
        f"deploy: {'d' * 9999}",
        f"? {'s' * 9999}\n: 1\n? {'s' * 9999}\n: 2",
    ],
)
def test_whatever_is_written_is_an_error_of_one_short_sentence(text: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        parse(text)
    assert len(str(caught.value)) < 450


def test_looking_for_the_nearest_of_long_names_takes_no_time() -> None:
    letters = [chr(0x4E00 + number % 150) for number in range(20_000)]
    names = "".join(letters), "".join(reversed(letters))
    before = time.process_time()
    for text in (
        f"tests:\n  ? {names[0]}\n  : {{}}\n  b: {{needs: [{names[1]}]}}",
        f"images:\n  ? {names[0]}\n  : {{}}\ndeploy: {names[1]}",
        f"services:\n  ? {names[0]}\n  : {{}}\ntests: {{b: {{services: [{names[1]}]}}}}",
    ):
        with pytest.raises(DefinitionError):
            parse(text)
    assert time.process_time() - before < 1  # each took several seconds


def test_values_of_variables_are_what_yaml_says() -> None:
    text = "tests: {a: {environment: {A: true, B: 1.5, C: , D: 2024-01-02, E: 'no'}}}"
    (test,) = (parse(text).tests or {}).values()
    assert test.environment == {"A": "true", "B": "1.5", "C": "", "D": "2024-01-02", "E": "no"}


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("90s", 90), ("1h30m", 5400), ("1d2h3m4s", 93784), ("1.5h", 5400), ("2 m", 120), ("7", 7)],
)
def test_times_are_written_as_compose_has_them(written: str, seconds: float) -> None:
    text = f"tests: {{a: {{timeout: {written}}}}}"
    assert (parse(text).tests or {})["a"].timeout == seconds
    assert Draft202012Validator(schema()).is_valid(yaml.safe_load(text))


def test_a_health_check_may_be_quick() -> None:
    text = (
        "services: {a: {healthcheck: {tcp: 1, interval: 500ms, timeout: 1m30s, start_period: 0s}}}"
    )
    check = parse(text).services["a"].healthcheck
    assert check is not None
    assert (check.interval, check.timeout, check.start_period) == (0.5, 90, 0)
    assert Draft202012Validator(schema()).is_valid(yaml.safe_load(text))


def test_a_key_is_a_text_whatever_yaml_says() -> None:
    text = "tests: {1: {environment: {NO: a, on: b, 1.10: c, ~: d}}, yes: {needs: '1'}}"
    tests = parse(text).tests or {}
    assert tests["1"].environment == {"NO": "a", "on": "b", "1.10": "c", "~": "d"}
    assert tests["yes"].needs == ["1"]
    with pytest.raises(DefinitionError, match="the key '1' is written twice"):
        parse("tests: {1: {}, '1': {}}")


def test_every_mistake_is_told_with_its_line_and_key_path() -> None:
    text = "build:\n  dockerfle: x\ntests:\n  unit:\n    cpus: 1\n    memory: lots\n  Bad: {}\n"
    with pytest.raises(DefinitionError) as caught:
        parse(text)
    assert sorted((fault.line, fault.path) for fault in caught.value.faults) == [
        (2, "build.dockerfle"),
        (6, "tests.unit.memory"),
        (7, "tests.Bad"),
    ]


def test_the_schema_knows_every_key_and_takes_sizes_as_people_write_them() -> None:
    made = schema()
    assert set(made["properties"]) >= {"build", "tests", "inputs", "schedule", "concurrency"}
    assert made["additionalProperties"] is False
    assert made["$defs"]["Test"]["properties"]["memory"]["type"] == ["string", "integer"]
