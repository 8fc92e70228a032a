"""The image config: what a container of the image runs, and which layers it has.

Image-spec config.md, with docker's extensions Healthcheck, Shell and OnBuild
(moby's docker-image-spec v1.3).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from builders.images.digests import check_digest
from builders.images.documents import (
    Malformed,
    as_list,
    as_object,
    load_object,
    optional_object,
    text,
    text_map,
    texts,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Healthcheck:
    """``test`` begins with NONE, CMD or CMD-SHELL; times are nanoseconds, 0 means the default."""

    test: tuple[str, ...] = ()
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """One entry per instruction; ``empty_layer`` tells that it made no layer."""

    created: str | None = None
    created_by: str = ""
    author: str = ""
    comment: str = ""
    empty_layer: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageConfig:
    """An image config. ``env`` holds ``KEY=value`` in order; ``created`` is RFC 3339.

    ``None`` for ``cmd`` and ``entrypoint`` means "not set", which differs from an
    empty list. Change one with ``dataclasses.replace``.
    """

    architecture: str
    os: str = "linux"
    variant: str = ""
    os_version: str = ""
    author: str = ""
    created: str | None = None
    env: tuple[str, ...] = ()
    cmd: tuple[str, ...] | None = None
    entrypoint: tuple[str, ...] | None = None
    user: str = ""
    working_dir: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    exposed_ports: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    stop_signal: str = ""
    healthcheck: Healthcheck | None = None
    shell: tuple[str, ...] | None = None
    on_build: tuple[str, ...] = ()
    history: tuple[History, ...] = ()
    diff_ids: tuple[str, ...] = ()

    @property
    def environment(self) -> dict[str, str]:
        """``env`` as a mapping; an entry without ``=`` has the empty value."""
        pairs = (item.partition("=") for item in self.env)
        return {key: value for key, _, value in pairs}

    def to_json(self) -> bytes:
        """The bytes whose digest is the image's id: sorted keys, no blanks."""
        document = {
            "architecture": self.architecture,
            "os": self.os,
            **_present(
                {
                    "variant": self.variant,
                    "os.version": self.os_version,
                    "author": self.author,
                    "created": self.created,
                }
            ),
            "config": self._run_config(),
            "rootfs": {"type": "layers", "diff_ids": list(self.diff_ids)},
            "history": [_history_to_json(entry) for entry in self.history],
        }
        return json.dumps(
            document, sort_keys=True, separators=(",", ":"), ensure_ascii=False
        ).encode()

    def _run_config(self) -> dict[str, Any]:
        return _present(
            {
                "User": self.user,
                "ExposedPorts": {port: {} for port in self.exposed_ports},
                "Env": list(self.env),
                "Entrypoint": _list_or_none(self.entrypoint),
                "Cmd": _list_or_none(self.cmd),
                "Volumes": {path: {} for path in self.volumes},
                "WorkingDir": self.working_dir,
                "Labels": dict(self.labels),
                "StopSignal": self.stop_signal,
                "Healthcheck": self.healthcheck and _healthcheck_to_json(self.healthcheck),
                "Shell": _list_or_none(self.shell),
                "OnBuild": list(self.on_build),
            },
            keep_empty=("Entrypoint", "Cmd", "Shell"),
        )

    @classmethod
    def from_json(cls, data: bytes) -> ImageConfig:
        """Read a config made by anyone. Fields we do not know are dropped.

        Raises Malformed, with a sentence, for anything of the wrong shape.
        """
        document = load_object(data, "the image config")
        run = optional_object(document.get("config"), "config")
        rootfs = optional_object(document.get("rootfs"), "rootfs")
        return cls(
            architecture=text(document, "architecture"),
            os=text(document, "os") or "linux",
            variant=text(document, "variant"),
            os_version=text(document, "os.version"),
            author=text(document, "author"),
            created=text(document, "created") or None,
            env=texts(run, "Env") or (),
            cmd=texts(run, "Cmd"),
            entrypoint=texts(run, "Entrypoint"),
            user=text(run, "User"),
            working_dir=text(run, "WorkingDir"),
            labels=text_map(run, "Labels"),
            exposed_ports=tuple(sorted(optional_object(run.get("ExposedPorts"), "ExposedPorts"))),
            volumes=tuple(sorted(optional_object(run.get("Volumes"), "Volumes"))),
            stop_signal=text(run, "StopSignal"),
            healthcheck=_healthcheck_from_json(run.get("Healthcheck")),
            shell=texts(run, "Shell"),
            on_build=texts(run, "OnBuild") or (),
            history=tuple(
                _history_from_json(entry) for entry in as_list(document.get("history"), "history")
            ),
            diff_ids=tuple(check_digest(d) for d in as_list(rootfs.get("diff_ids"), "diff_ids")),
        )


def _present(values: Mapping[str, Any], keep_empty: tuple[str, ...] = ()) -> dict[str, Any]:
    return {k: v for k, v in values.items() if v or (v is not None and k in keep_empty)}


def _list_or_none(values: tuple[str, ...] | None) -> list[str] | None:
    return None if values is None else list(values)


_HEALTH_TIMES = {
    "Interval": "interval",
    "Timeout": "timeout",
    "StartPeriod": "start_period",
    "StartInterval": "start_interval",
    "Retries": "retries",
}


def _healthcheck_to_json(check: Healthcheck) -> dict[str, Any]:
    numbers = {key: getattr(check, name) for key, name in _HEALTH_TIMES.items()}
    return _present({"Test": list(check.test), **numbers})


def _healthcheck_from_json(value: object) -> Healthcheck | None:
    if value is None:
        return None
    check = as_object(value, "Healthcheck")
    numbers = {name: check.get(key) or 0 for key, name in _HEALTH_TIMES.items()}
    if not all(isinstance(number, int) for number in numbers.values()):
        raise Malformed("a number in Healthcheck is none")
    return Healthcheck(test=texts(check, "Test") or (), **numbers)


def _history_to_json(entry: History) -> dict[str, Any]:
    return _present(
        {
            "created": entry.created,
            "created_by": entry.created_by,
            "author": entry.author,
            "comment": entry.comment,
            "empty_layer": entry.empty_layer,
        }
    )


def _history_from_json(value: object) -> History:
    entry = as_object(value, "an entry of history")
    return History(
        created=text(entry, "created") or None,
        created_by=text(entry, "created_by"),
        author=text(entry, "author"),
        comment=text(entry, "comment"),
        empty_layer=bool(entry.get("empty_layer")),
    )
