"""What each command does, a function each; ``COMMANDS`` lists them."""

from __future__ import annotations

import argparse
import dataclasses
import json
import threading
from collections.abc import Callable
from pathlib import Path

from builders.bases import make_base, recipe_names
from builders.build import BuildRequest, build
from builders.cli.destinations import Destination, destination_of, export
from builders.cli.naming import images, known_image, rmi, tag
from builders.cli.progress import PlainProgress, say
from builders.cli.sources import agents, dockerfile_of, open_context, pairs, secrets
from builders.errors import UserError
from builders.images.prune import PruneLimits
from builders.images.reference import Reference
from builders.images.store import Image, Store
from builders.layouts import import_image
from builders.registry import KnownRegistries, Registry
from builders.resolve import Resolver
from builders.shared import SharedCache
from runtime.reap import reap
from runtime.spec import IdRange, Limits
from runtime.state import StateDirectory

Command = Callable[[argparse.Namespace, threading.Event], None]


def build_command(options: argparse.Namespace, cancel: threading.Event) -> None:
    names = [Reference.parse(name) for name in options.tag]
    if options.push and not names:
        raise UserError("--push needs a name.", hint="Give one with -t.", code="cli.flag")
    destination = destination_of(options.output) if options.output else None
    store = Store(options.store, compression=options.compression)
    shared = _shared(options, store)
    context, epoch = open_context(options.context)
    try:
        dockerfile = dockerfile_of(options.file, options.context)
        request = BuildRequest(
            context=context,
            dockerfile=dockerfile.name,
            dockerfile_data=dockerfile.data,
            ignore_data=dockerfile.ignore,
            targets=(options.target,),
            platform=options.platform,
            build_args=pairs(options.build_arg, "--build-arg"),
            labels=pairs(options.label, "--label"),
            secrets=secrets(options.secret),
            ssh=agents(options.ssh),
            epoch=epoch,
            ids=IdRange(options.id_base),
            limits=Limits(
                memory=options.memory,
                cpus=options.cpus,
                pids=options.pids,
                timeout=options.timeout,
                silence=options.silence,
                disk=options.disk,
                inodes=options.inodes,
                output=options.output_limit,
            ),
            network=options.network,
            egress_allow=tuple(options.egress_allow),
            scope="cli",
            no_cache=options.no_cache,
            shared=shared,
            pack=options.push or bool(options.output),
            extra_ca=options.extra_ca,
        )
        made = build(
            request,
            store=store,
            state=StateDirectory(_sandboxes(options)),
            resolve=_resolver(options, store),
            listener=PlainProgress(quiet=options.quiet),
            cancel=cancel,
        )
    finally:
        context.close()
    _deliver(options, store, made[options.target], names, destination)
    if shared is not None and options.cache_to:
        shared.save()


def _sandboxes(options: argparse.Namespace) -> Path:
    store: Path = options.store
    return store.parent / "sandboxes"


def _shared(options: argparse.Namespace, store: Store) -> SharedCache | None:
    """The cache in a registry, named as docker does (type=registry,ref=NAME) or by NAME alone."""
    given = [_reference_of(text) for text in (options.cache_from, options.cache_to) if text]
    if not given:
        return None
    if given[0] != given[-1]:
        raise UserError("--cache-from and --cache-to name one repository.", code="cli.flag")
    registry = _registry(options, given[0].registry)
    return SharedCache(registry, given[0], store, scope="cli", say=say)


def _reference_of(text: str) -> Reference:
    fields = dict(part.partition("=")[::2] for part in text.split(","))
    if fields.get("type", "registry") != "registry":
        raise UserError(
            f"A cache of {text!r} is not supported: it is in a registry.",
            hint="Write type=registry,ref=NAME, or NAME alone.",
            code="cli.flag",
        )
    return Reference.parse(fields.get("ref") or text)


def _deliver(
    options: argparse.Namespace,
    store: Store,
    image: Image,
    names: list[Reference],
    destination: Destination | None,
) -> None:
    for name in names:
        store.tag(image, name)
    if destination is not None:
        export(destination, image, names)
    if options.push:
        for name in names:
            _push(options, image, name, store)
    if options.iidfile is not None:
        options.iidfile.write_text(image.id)
    print(image.id)


def pull(options: argparse.Namespace, _: threading.Event) -> None:
    store = Store(options.store)
    name = Reference.parse(options.name)
    mirror = _mirrors(options).get(name.registry, name.registry)
    with _registry(options, mirror) as registry:
        image = registry.pull(name, store)
    print(image.id)


def push(options: argparse.Namespace, _: threading.Event) -> None:
    store = Store(options.store)
    name = Reference.parse(options.name)
    _push(options, known_image(store, name), name, store)


def inspect(options: argparse.Namespace, _: threading.Event) -> None:
    store = Store(options.store)
    image = known_image(store, Reference.parse(options.name))
    document = {
        "id": image.id,
        "layers": [
            {"diff_id": layer.diff_id, "size": layer.size, "files": layer.files}
            for layer in image.layers
        ],
        **json.loads(image.config.to_json()),
    }
    print(json.dumps(document, indent=2))


def _registry(options: argparse.Namespace, host: str) -> Registry:
    known = _registries(options)
    return Registry(
        host, credentials=known.credentials.get(host), plain_http=known.speaks_plain(host)
    )


def _registries(options: argparse.Namespace) -> KnownRegistries:
    path: Path | None = options.registries
    return KnownRegistries() if path is None else KnownRegistries.load(path)


def _push(options: argparse.Namespace, image: Image, name: Reference, store: Store) -> None:
    with _registry(options, name.registry) as registry:
        result = registry.push(image, name, store)
    print(f"{name} {result.digest}: {result.bytes_sent} bytes sent")


def _resolver(options: argparse.Namespace, store: Store) -> Resolver:
    newer = bool(options.pull)
    return Resolver(store, mirrors=_mirrors(options), known=_registries(options), newer=newer)


def _mirrors(options: argparse.Namespace) -> dict[str, str]:
    return pairs(options.registry_mirror, "--registry-mirror")


def base(options: argparse.Namespace, _: threading.Event) -> None:
    if not options.name:
        print("\n".join(recipe_names()))
        return
    image = make_base(
        Reference.parse(options.name), Store(options.store), again=options.again, progress=say
    )
    print(image.id)


def import_command(options: argparse.Namespace, _: threading.Event) -> None:
    image = import_image(options.path, Reference.parse(options.name), Store(options.store))
    print(image.id)


def prune(options: argparse.Namespace, _: threading.Event) -> None:
    limits = PruneLimits(
        older_than=options.older_than, max_bytes=options.max_size, keep=frozenset(options.keep)
    )
    store = Store(options.store)
    left = [*reap(StateDirectory(_sandboxes(options))), *store.reap()]
    done = store.prune(limits)
    if options.json:
        print(json.dumps({**dataclasses.asdict(done), "left_behind": len(left)}))
        return
    if left:
        print(f"Removed what killed builds left: {len(left)}.")
    print(
        f"Removed {done.images} images, {done.steps} cached steps, {done.caches} cache mounts, "
        f"{done.layers} layers and {done.blobs} blobs: {done.bytes_freed >> 20} MiB. "
        f"{done.bytes_left >> 20} MiB are left."
    )


COMMANDS: dict[str, Command] = {
    "base": base,
    "build": build_command,
    "images": images,
    "import": import_command,
    "pull": pull,
    "push": push,
    "inspect": inspect,
    "prune": prune,
    "rmi": rmi,
    "tag": tag,
}
