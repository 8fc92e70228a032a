"""Names of images are read as docker reads them."""

from __future__ import annotations

import pytest

from builders.images.reference import BadReference, Reference

DIGEST = "sha256:" + "0a" * 32


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("debian", "docker.io/library/debian:latest"),
        ("debian:bookworm", "docker.io/library/debian:bookworm"),
        ("gantry/python:3", "docker.io/gantry/python:3"),
        ("index.docker.io/library/debian", "docker.io/library/debian:latest"),
        ("localhost/app", "localhost/app:latest"),
        ("127.0.0.1:5000/team/app:v1", "127.0.0.1:5000/team/app:v1"),
        ("[::1]:5000/app:v1", "[::1]:5000/app:v1"),
        ("registry.example.com/a/b/c__d", "registry.example.com/a/b/c__d:latest"),
        (f"debian@{DIGEST}", f"docker.io/library/debian@{DIGEST}"),
        (f"debian:bookworm@{DIGEST}", f"docker.io/library/debian:bookworm@{DIGEST}"),
    ],
)
def test_a_name_has_one_normal_form(text: str, normal: str) -> None:
    reference = Reference.parse(text)
    assert str(reference) == normal
    assert Reference.parse(normal) == reference


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "Debian", "a//b", "../x", "a/../b", "x:", "a:b:c", "-x", "x@sha256:00", "x@md5:00",
        f"x@{DIGEST.upper()}", "http://x/y", "x y", "x\n", "a/" * 130 + "a", "x:" + "t" * 129,
        "host:99999999/x", "user@host/x", "host:65536/x", "host:0/x", "[:::::]:80/x", "[1.2]:80/x",
    ],
)  # fmt: skip
def test_what_is_no_name_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(BadReference, match="is not the name of an image") as caught:
        Reference.parse(text)
    assert "debian:bookworm" in caught.value.hint


def test_the_familiar_form_is_what_people_type() -> None:
    assert Reference.parse("docker.io/library/debian:bookworm").familiar == "debian:bookworm"
    assert Reference.parse("gantry/python:3").familiar == "gantry/python:3"
    assert Reference.parse("127.0.0.1:5000/a:b").familiar == "127.0.0.1:5000/a:b"


def test_a_digest_is_what_a_registry_is_asked_for() -> None:
    reference = Reference.parse("debian:bookworm")
    assert reference.target == "bookworm"
    assert reference.with_digest(DIGEST).target == DIGEST
    assert reference.with_digest(DIGEST).tag is None
    assert reference.with_tag("v2").target == "v2"
    with pytest.raises(BadReference):
        reference.with_tag("no/tag")
