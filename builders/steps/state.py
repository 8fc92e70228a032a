"""What a stage has come to between two instructions: a value, never changed in place."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property

from builders.images.config import History, ImageConfig
from builders.images.layerstore import Layer

DEFAULT_SHELL = ("/bin/sh", "-c")
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class StageState:
    """``env`` is the config's environment with the ARGs in scope laid over it, latest wins.

    ``cmd_set`` tells that this stage has its own CMD, which ENTRYPOINT then keeps.
    """

    config: ImageConfig
    layers: tuple[Layer, ...]
    env: Mapping[str, str]
    args: Mapping[str, str | None] = field(default_factory=dict)
    cmd_set: bool = False

    @classmethod
    def of_image(cls, config: ImageConfig, layers: tuple[Layer, ...]) -> StageState:
        return cls(config=config, layers=layers, env=config.environment)

    @cached_property
    def chain(self) -> str:
        """Names the file system: a digest over the layers' diff ids, bottom first."""
        return chain_id(self.layers)

    @property
    def workdir(self) -> str:
        return self.config.working_dir or "/"

    @property
    def shell(self) -> tuple[str, ...]:
        return self.config.shell or DEFAULT_SHELL

    def configured(self, **changes: object) -> StageState:
        return replace(self, config=replace(self.config, **changes))  # type: ignore[arg-type]

    def with_layer(self, layer: Layer | None) -> StageState:
        if layer is None:
            return self
        layers = (*self.layers, layer)
        config = replace(self.config, diff_ids=tuple(item.diff_id for item in layers))
        return replace(self, layers=layers, config=config)

    def remembered(self, text: str, *, epoch: int, empty: bool) -> StageState:
        """The state with one more line of history."""
        entry = History(
            created=timestamp(epoch), created_by=text, comment="gantry", empty_layer=empty
        )
        return self.configured(history=(*self.config.history, entry))


def chain_id(layers: tuple[Layer, ...]) -> str:
    total = hashlib.sha256()
    for layer in layers:
        total.update(layer.diff_id.encode() + b"\n")
    return total.hexdigest()


def timestamp(epoch: int) -> str:
    """RFC 3339, as image configs hold it."""
    return datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
