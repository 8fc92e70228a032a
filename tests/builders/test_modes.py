"""--chmod's symbolic form beside what BuildKit's own (dchapes/mode, in Go) answers."""

from __future__ import annotations

import pytest

from builders.dockerfile.instructions import Position
from builders.errors import DockerfileError
from builders.steps.modes import ModeChange

AT = Position("Dockerfile", 7, 7, "COPY")


@pytest.mark.parametrize(
    ("text", "before", "file", "folder"),
    [
        ("g=u", 0o640, 0o660, 0o660),
        ("a=u", 0o4750, 0o4777, 0o4777),
        ("go=u-w", 0o700, 0o755, 0o755),
        ("u+r-w", 0o200, 0o400, 0o400),
        ("g+ur", 0o307, 0o377, 0o377),
        ("g=ur", 0o700, 0o740, 0o740),
        ("g=ru", 0o300, 0o330, 0o330),
        ("g=Xu", 0o600, 0o660, 0o660),
        ("a-x,a+X", 0o744, 0o755, 0o755),
        ("a-X", 0o755, 0o644, 0o644),
        ("=rX", 0o640, 0o444, 0o555),
        ("o=", 0o1777, 0o1770, 0o1770),
        ("u=rw", 0o4755, 0o655, 0o655),
        ("ug+s,o+t", 0o755, 0o6755, 0o6755),
        ("+rt", 0o600, 0o1600, 0o1600),
        ("u-g,o+u", 0o750, 0o252, 0o252),
        ("00000640", 0o777, 0o640, 0o640),
    ],
)
def test_a_mode_changes_as_in_buildkit(text: str, before: int, file: int, folder: int) -> None:
    change = ModeChange(text, AT)
    assert [oct(change.apply(before, folder=each)) for each in (False, True)] == [
        oct(file),
        oct(folder),
    ]


@pytest.mark.parametrize("text", ["", "u", "rwx", "u=rwx,", ",u=r", "u:r", "z+r", "10000", "8"])
def test_what_is_no_mode_is_refused(text: str) -> None:
    with pytest.raises(DockerfileError, match=r"^Dockerfile:7: .* is no file mode"):
        ModeChange(text, AT)
