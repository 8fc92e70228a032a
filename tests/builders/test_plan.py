"""Stages -> graph: pure."""

from __future__ import annotations

from builders.dockerfile import parse_dockerfile
from builders.plan import Plan, make_plan


def plan(text: str, *targets: str | None, **args: str) -> Plan:
    return make_plan(parse_dockerfile(text.encode()), targets=targets or (None,), build_args=args)


FOUR = """FROM a AS one
FROM one AS two
FROM b AS three
FROM c
COPY --from=two x y
RUN --mount=type=bind,from=2,target=/t true
COPY --from=busybox:1 x y
"""


def test_the_last_stage_pulls_in_what_it_reads() -> None:
    made = plan(FOUR)
    assert made.needed == (0, 1, 2, 3)
    assert [sorted(stage.needs) for stage in made.stages] == [[], [0], [], [1, 2]]
    assert made.stages[1].parent == 0


def test_stages_that_nobody_needs_are_dropped() -> None:
    assert plan(FOUR, "two").needed == (0, 1)
    assert plan(FOUR, "three", "one").needed == (0, 2)


def test_several_targets_are_one_plan() -> None:
    made = plan(FOUR, None, "two")
    assert made.targets == {None: 3, "two": 1}


def test_a_build_argument_chooses_the_base() -> None:
    text = "ARG BASE=one\nFROM x AS one\nFROM y AS two\nFROM $BASE\n"
    assert plan(text).needed == (0, 2)
    assert plan(text, BASE="two").needed == (1, 2)


def test_a_name_that_is_no_stage_is_an_image() -> None:
    assert plan(FOUR).stage_of("busybox:1", before=3) is None
    assert plan("FROM later\nFROM x AS later\n").stages[0].base == "later"


def test_an_unused_build_argument_is_a_warning() -> None:
    made = plan("FROM x\nARG known\n", known="1", unknown="2", HTTP_PROXY="p")
    assert made.warnings == ("The build argument unknown is not used by any ARG.",)


def test_a_name_that_two_stages_have_means_the_last_before() -> None:
    text = "FROM x AS a\nFROM a AS b\nFROM y AS A\nFROM a AS c\nFROM z\nCOPY --from=a /f /\n"
    made = plan(text, "b", "c", "a", None)
    assert [made.stages[index].parent for index in (1, 3)] == [0, 2]
    assert made.stage_of("a", before=2) == 0
    assert made.targets["a"] == made.stage_of("A", before=4) == 2
    assert made.warnings == (
        "Dockerfile:3: a names an earlier stage, too; after this line it means this one.",
    )
