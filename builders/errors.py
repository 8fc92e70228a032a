"""Errors of the builder, by who must act.

    BuildError
    ├── UserError            the repository's or Dockerfile's author: exit code 1
    │   ├── DockerfileError      syntax, unknown instruction or flag, bad value
    │   ├── ContextError         missing COPY source, unreadable path, bad .dockerignore
    │   ├── ImageNotFound        FROM names an image nobody has
    │   │   ├── RegistryClosed       FROM leads to where a build may not ask
    │   │   └── WrongPlatform        it is made, for other platforms
    │   └── StepFailed           a RUN ended badly: carries its receipt and last lines
    ├── BuildCancelled       somebody asked for it; nothing is wrong
    └── ServiceError         whoever runs Gantry: exit code 2
        ├── RegistryError        registry unreachable, refused or lied
        └── StoreError           our disk, a mount, a corrupt layer

Each has a stable ``code`` (``dockerfile.syntax``), a sentence, the next step as
``hint`` and, where there is one, ``place`` (``Dockerfile:12``).
"""

from __future__ import annotations

from runtime.spec import Receipt


class BuildError(Exception):
    """A sentence for a person, with its place and what to do next."""

    code = "build"

    def __init__(self, message: str, *, place: str = "", hint: str = "", code: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.place = place
        self.hint = hint
        self.column = 0  # from 1, where it is known
        self.excerpt = ""  # the line of the Dockerfile with a caret under the column
        if code:
            self.code = code

    @property
    def where(self) -> str:
        """The place, with the column where that is known: ``Dockerfile:12:6``."""
        return f"{self.place}:{self.column}" if self.column else self.place

    def __str__(self) -> str:
        text = f"{self.place}: {self.message}" if self.place else self.message
        if not self.hint:
            return text
        return f"{text}{'' if text.endswith(('.', '?', '!')) else '.'} {self.hint}"


class UserError(BuildError):
    code = "build.user"


class DockerfileError(UserError):
    code = "dockerfile"


class ContextError(UserError):
    code = "context"


class ImageNotFound(UserError):
    code = "image.not-found"


class WrongPlatform(ImageNotFound):
    """An image of that name is there, for other platforms than the one asked for."""

    code = "image.platform"


class RegistryClosed(ImageNotFound):
    code = "registry.closed"


class StepFailed(UserError):
    code = "step.failed"

    def __init__(
        self, message: str, *, receipt: Receipt, tail: str = "", place: str = "", hint: str = ""
    ) -> None:
        super().__init__(message, place=place, hint=hint)
        self.receipt = receipt
        self.tail = tail


class BuildCancelled(BuildError):
    code = "build.cancelled"


class ServiceError(BuildError):
    code = "build.service"


class RegistryError(ServiceError):
    code = "registry"


class StoreError(ServiceError):
    code = "store"
