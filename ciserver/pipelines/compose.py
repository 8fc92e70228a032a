"""``compose.test.yml``: the service ``sut`` as a test, with what it depends on beside it.

As Docker Hub's automated tests had it: ``sut`` is started once its dependencies are, and its exit
code decides. Of the Compose specification what makes sense for a test is understood; a key that
does not is named, with what to do instead; what changes nothing here is left out, with a notice
if somebody could miss it. https://github.com/compose-spec/compose-spec/blob/main/spec.md
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, ClassVar, TypeVar

import yaml
from pydantic import ValidationError

from ciserver.pipelines.definition import NAME, Build, NamedBuild, Test
from ciserver.pipelines.faults import DefinitionError, nearest
from ciserver.pipelines.mistakes import explained
from ciserver.pipelines.service_definition import STARTED, Service, bad_services, chosen
from ciserver.pipelines.yaml_nodes import line_of, load

COMPOSE_FILES = (
    "compose.test.yml",
    "compose.test.yaml",
    "docker-compose.test.yml",
    "docker-compose.test.yaml",
)
SUT = "sut"
USED = {
    "build",
    "command",
    "cpus",
    "depends_on",
    "deploy",
    "entrypoint",
    "environment",
    "healthcheck",
    "image",
    "links",
    "mem_limit",
    "pids_limit",
    "user",
    "working_dir",
}
# They change nothing here that a test could see.
WITHOUT_EFFECT = {
    "attach",
    "container_name",
    "domainname",
    "expose",
    "hostname",
    "init",
    "labels",
    "logging",
    "networks",
    "oom_score_adj",
    "platform",
    "profiles",
    "pull_policy",
    "restart",
    "stdin_open",
    "stop_grace_period",
    "stop_signal",
    "tty",
}
# They are left out, and the log says so.
LEFT_OUT = {
    "annotations": "it has no effect here",
    "dns": "services find one another by name as they are",
    "extra_hosts": "there is no name beside those of the services",
    "ports": "a test reaches services by their names, on their own ports",
    "read_only": "the container's root can be written and is thrown away",
    "shm_size": "shared memory has 64 MiB",
    "sysctls": "kernel parameters cannot be set",
    "tmpfs": "the container's root can be written and is thrown away",
    "ulimits": "limits are those of memory, cpus and pids",
}
REFUSED = {
    "cap_add": "Containers of a pipeline get no capabilities: leave it out.",
    "configs": "COPY the file into the image.",
    "devices": "Containers of a pipeline get no devices: leave it out.",
    "env_file": "Write its variables under 'environment'.",
    "extends": "Write the service out here.",
    "ipc": "Each container has its own: leave it out.",
    "network_mode": "The services share a private network: leave it out.",
    "pid": "Each container has its own: leave it out.",
    "privileged": "Containers of a pipeline are never privileged: leave it out.",
    "secrets": "Name the project's secrets in gantry.yml: tests.NAME.secrets.",
    "security_opt": "Containers of a pipeline keep their defences: leave it out.",
    "volumes_from": "COPY what the test needs into its image.",
}
TOP = {"services", "version", "name", "volumes", "networks"}
_VARIABLE = re.compile(
    r"\$(?:(?P<escaped>\$)|\{(?P<name>\w+)(?:(?P<how>:?[-?+])(?P<rest>[^{}]*))?\}|(?P<bare>\w+))"
)
_TIME = re.compile(r"(\d+(?:\.\d+)?)(h|ms|us|m|s)")
_SECONDS = {"h": 3600, "m": 60, "s": 1, "ms": 0.001, "us": 0.000001}


Made = TypeVar("Made", Service, "ComposeTest", NamedBuild)


class ComposeError(Exception):
    """The file cannot be used as a test. ``place`` is ``FILE:LINE: PATH``, as far as known."""

    def __init__(
        self, message: str, *, file: str, line: int | None = None, path: str = "", hint: str = ""
    ) -> None:
        where = f"{file}:{line}" if line else file
        self.place = f"{where}: {path}" if path else where
        super().__init__(f"{self.place}: {message}")
        self.message = message
        self.line = line
        self.path = path
        self.hint = hint


class ComposeTest(Test):
    keeps_entrypoint: ClassVar[bool] = True


@dataclass(frozen=True, slots=True)
class ComposeTests:
    """``builds`` are the images that the main Dockerfile does not give; they are not released."""

    test: ComposeTest
    services: dict[str, Service]
    builds: dict[str, NamedBuild]
    notices: tuple[str, ...]


def read_compose(
    data: bytes, *, file: str, main: Build, images: Mapping[str, Build] | None = None
) -> ComposeTests:
    """What ``file`` asks for, beside the ``main`` image and the ``images`` that there are already,
    by name. Raises ComposeError."""
    try:
        tree, parsed = load(data.decode())
    except UnicodeDecodeError:
        hint = "Save it in that encoding."
        raise ComposeError("This file is not UTF-8.", file=file, hint=hint) from None
    except DefinitionError as error:
        line = error.faults[0].line
        hint = "Write it out at each place." if "alias" in error.message else ""
        words = error.message.capitalize()
        raise ComposeError(words, file=file, line=line, hint=hint) from None
    return _Reader(file, tree, main, images or {}).read(parsed)


@dataclass(slots=True)
class _Reader:
    file: str
    tree: yaml.Node | None
    main: Build
    images: Mapping[str, Build]
    builds: dict[str, NamedBuild] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)

    def read(self, parsed: Any) -> ComposeTests:
        if not isinstance(parsed, dict) or not isinstance(parsed.get("services"), dict):
            raise self._error("there are no services.", "services")
        for key in map(str, parsed):
            if key not in TOP and not key.startswith("x-"):
                hint = REFUSED.get(key) or self._nearest(key, TOP)
                raise self._error(f"{key!r} is not understood here.", key, hint)
        found = self._filled(parsed["services"], "services")
        if SUT not in found:
            hint = "Call the service whose exit code decides 'sut', or write tests in gantry.yml."
            raise self._error("there is no service 'sut'.", "services", hint)
        parts = {str(name): self._part(str(name), it) for name, it in found.items()}
        sut = parts.pop(SUT)
        needs = sut["depends_on"]
        services = {name: self._made(Service, part, name) for name, part in parts.items()}
        for name in needs:
            if name not in services:
                hint = self._nearest(name, services)
                raise self._error(f"there is no service {name!r}.", f"services.{SUT}", hint)
        test = self._made(ComposeTest, {**sut, "services": dict.fromkeys(needs)}, SUT)
        for fault in bad_services(services, "services"):
            raise self._error(fault.message, fault.path)
        for name in sorted(services.keys() - chosen(test.services, services).keys()):
            self._say(f"services.{name} is not started: sut does not depend on it.")
        return ComposeTests(test, services, self.builds, tuple(self.notices))

    def _part(self, name: str, raw: Any) -> dict[str, Any]:
        """The keys of one service as ``Service`` and ``Test`` have them."""
        path = f"services.{name}"
        if not NAME.match(name):
            message = "a service's name is lower-case letters, digits, '-' and '_'."
            raise self._error(message, path)
        if not isinstance(raw, dict):
            raise self._error("expected keys such as 'image' and 'command'.", path)
        self._check_keys(raw, path)
        part = {
            key: raw[key]
            for key in ("entrypoint", "command", "environment", "user", "working_dir", "cpus")
            if raw.get(key) is not None
        }
        for key in ("user", "working_dir"):
            if key in part:
                part[key] = str(part[key])
        part |= self._image(name, raw, path)
        part |= self._limits(raw)
        part["depends_on"] = self._depends_on(raw, path)
        if raw.get("healthcheck") is not None and name != SUT:
            part["healthcheck"] = self._healthcheck(raw["healthcheck"], f"{path}.healthcheck")
        return part

    def _check_keys(self, raw: Mapping[Any, Any], path: str) -> None:
        for key in map(str, raw):
            if key in REFUSED and raw[key]:
                raise self._error(f"{key!r} is not possible here.", f"{path}.{key}", REFUSED[key])
            if key in LEFT_OUT:
                self._say(f"{path}.{key} is left out: {LEFT_OUT[key]}.")
            elif key == "volumes":
                self._check_volumes(raw[key], path)
            elif key not in USED | WITHOUT_EFFECT | REFUSED.keys() and not key.startswith("x-"):
                hint = self._nearest(key, USED)
                raise self._error(f"there is no key {key!r}.", f"{path}.{key}", hint)

    def _check_volumes(self, volumes: Any, path: str) -> None:
        for volume in volumes if isinstance(volumes, list) else ():
            kind = volume.get("type") if isinstance(volume, dict) else ""
            if kind == "bind" or (
                isinstance(volume, str) and volume[:1] in {".", "/", "~"} and ":" in volume
            ):
                raise self._error(
                    "folders of the host cannot be mounted.",
                    f"{path}.volumes",
                    "A test runs in its image: COPY what it needs in the Dockerfile.",
                )
        self._say(f"{path}.volumes is left out: each container begins empty.")

    def _image(self, name: str, raw: Mapping[str, Any], path: str) -> dict[str, Any]:
        asked = raw.get("build")
        if asked is None:
            if not raw.get("image"):
                raise self._error("it has neither 'image' nor 'build'.", path)
            return {"image": str(raw["image"])}
        if not isinstance(asked, dict):
            asked = {"context": asked}
        context = str(asked.get("context", "."))
        if "://" in context or context.startswith("git@") or ".." in PurePosixPath(context).parts:
            hint = "Name a folder of the repository."
            raise self._error("the context is not in this repository.", f"{path}.build", hint)
        if "dockerfile_inline" in asked:
            hint = "Write it to a file of the repository."
            raise self._error("a Dockerfile cannot be written here.", f"{path}.build", hint)
        keys = {key: asked[key] for key in ("dockerfile", "args") if asked.get(key)}
        made = self._made(NamedBuild, {**keys, "context": _folder(context), "release": False}, name)
        target = str(asked["target"]) if asked.get("target") else None
        if _same(made, self.main) and (target or self.main.target is None):
            return {"stage": target} if target else {}
        if (known := self.images.get(name)) is None:
            self.builds[name] = made.model_copy(update={"target": target})
            return {"image": name}
        if not _same(made, known) or (target is None and known.target is not None):
            # Under one name there is one image: the released one must not become another.
            message = f"{name!r} is the name of an image of this project, which this is not."
            hint = "Call the service something else, or give it that image's keys of 'build'."
            raise self._error(message, f"{path}.build", hint)
        return {"image": name, "stage": target} if target else {"image": name}

    def _limits(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        limits: dict[str, Any] = {}
        deploy = raw.get("deploy")
        resources = deploy.get("resources") if isinstance(deploy, dict) else None
        most = resources.get("limits") if isinstance(resources, dict) else None
        if isinstance(most, dict):
            limits = {key: most[key] for key in ("memory", "cpus", "pids") if key in most}
        if raw.get("mem_limit") is not None:
            limits["memory"] = raw["mem_limit"]
        if raw.get("pids_limit"):
            limits["pids"] = raw["pids_limit"]
        return limits

    def _depends_on(self, raw: Mapping[str, Any], path: str) -> dict[str, dict[str, Any]]:
        needs: dict[str, dict[str, Any]] = {}
        for link in raw.get("links") or ():
            name, _, alias = str(link).partition(":")
            if alias and alias != name:
                hint = f"Let {path.partition('.')[2]} reach it as {name}."
                raise self._error("a link cannot have an alias.", f"{path}.links", hint)
            needs[name] = {"condition": STARTED}
        asked = raw.get("depends_on") or {}
        if isinstance(asked, dict):
            for name, more in asked.items():
                condition = more.get("condition", STARTED) if isinstance(more, dict) else STARTED
                needs[str(name)] = {"condition": condition}
        else:
            needs |= {str(name): {"condition": STARTED} for name in asked}
        return needs

    def _healthcheck(self, raw: Any, path: str) -> dict[str, Any]:
        if not isinstance(raw, dict):
            raise self._error("expected keys such as 'test' and 'interval'.", path)
        if raw.get("disable"):
            return {"test": ["NONE"]}
        times = {"interval": "30s", "timeout": "30s", "start_period": "0s"}
        check: dict[str, Any] = {"retries": raw.get("retries", 3)}
        if raw.get("test"):
            check["test"] = raw["test"]
        for key, default in times.items():
            seconds = _seconds(str(raw.get(key, default)))
            if seconds is None:
                raise self._error("expected a time such as 5s or 1m30s.", f"{path}.{key}")
            if key != "start_period" or seconds:
                check[key] = max(seconds, 1.0)
        return check

    def _made(self, kind: type[Made], part: dict[str, Any], name: str) -> Made:
        try:
            return kind.model_validate(part)
        except ValidationError as error:
            first = explained(kind, part, error.errors())[0]
            raise self._error(first.message, f"services.{name}.{first.path}") from None

    def _filled(self, value: Any, path: str) -> Any:
        """With variables replaced by their defaults: there is no environment to take them from."""
        if isinstance(value, dict):
            return {key: self._filled(it, f"{path}.{key}") for key, it in value.items()}
        if isinstance(value, list):
            return [self._filled(it, f"{path}.{at}") for at, it in enumerate(value)]
        if not isinstance(value, str):
            return value

        def replaced(match: re.Match[str]) -> str:
            if match["escaped"]:
                return "$"
            if match["how"] in {"-", ":-"}:
                return match["rest"]
            if match["how"] in {"+", ":+"}:
                return ""
            name = match["name"] or match["bare"]
            hint = f"Write ${{{name}:-VALUE}}, or $$ for a dollar sign."
            raise self._error(f"the variable {name} has no value here.", path, hint)

        return _VARIABLE.sub(replaced, value)

    def _nearest(self, name: str, known: Any) -> str:
        near = nearest(name, known)
        return f"Did you mean {near!r}?" if near else "Leave it out, or write gantry.yml."

    def _say(self, words: str) -> None:
        self.notices.append(f"{self.file}: {words}")

    def _error(self, message: str, path: str, hint: str = "") -> ComposeError:
        words = message[:1].upper() + message[1:]
        line = line_of(self.tree, path)
        return ComposeError(words, file=self.file, line=line, path=path, hint=hint)


def _folder(context: str) -> str:
    return str(PurePosixPath(context))


def _same(one: Build, other: Build) -> bool:
    return (_folder(one.context), one.dockerfile, one.args) == (
        _folder(other.context),
        other.dockerfile,
        other.args,
    )


def _seconds(words: str) -> float | None:
    """Compose's durations: 1m30s, 500ms."""
    parts = _TIME.findall(words.replace(" ", ""))
    if not parts or "".join(number + unit for number, unit in parts) != words.replace(" ", ""):
        return None
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)
