"""Packs of logs in object storage that speaks S3: put, read in ranges, delete.

Keys come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or from the machine's own role.
Loaded only where ``GANTRY_LOG_STORE`` is set.
"""

from __future__ import annotations

from functools import cache, lru_cache
from typing import BinaryIO
from urllib.parse import parse_qs, urlsplit

import obstore
from obstore.exceptions import BaseError, NotFoundError
from obstore.store import S3Store

from ciserver.lib.problems import Refused
from ciserver.pipelines import logpack
from ciserver.pipelines.logpack import Index, PackedLog


class StoreAway(Refused):
    """The object storage did not answer, or refused."""

    def __init__(self, error: Exception) -> None:
        super().__init__(
            "The object storage of logs does not answer as it should.",
            code="logs.store",
            hint=f"Try again; if it stays, whoever runs Gantry looks at GANTRY_LOG_STORE."
            f" It said: {str(error)[:300]}",
            status=503,
        )


def open_object(store: str, key: str) -> PackedLog:
    """Raises FileNotFoundError, StoreAway, NotAPack."""
    try:
        index = _index(store, key)
    except NotFoundError:
        raise FileNotFoundError(key) from None
    except BaseError as error:
        raise StoreAway(error) from error
    return PackedLog(index, lambda number: _frame(store, key, number))


def put(store: str, key: str, source: BinaryIO) -> None:
    """Raises StoreAway."""
    try:
        obstore.put(_open(store), key, source)
    except BaseError as error:
        raise StoreAway(error) from error


def delete(store: str, key: str) -> None:
    """Nothing when it is not there. Raises StoreAway."""
    try:
        obstore.delete(_open(store), key)
    except NotFoundError:
        pass
    except BaseError as error:
        raise StoreAway(error) from error


@cache
def _open(store: str) -> S3Store:
    parts = urlsplit(store)
    options = {name: values[0] for name, values in parse_qs(parts.query).items()}
    endpoint = options.get("endpoint")
    return S3Store(
        parts.netloc,
        endpoint=endpoint,
        region=options.get("region", "us-east-1"),
        virtual_hosted_style_request=options.get("style") == "virtual",
        client_options={
            "allow_http": bool(endpoint and endpoint.startswith("http://")),
            "timeout": "30s",
            "connect_timeout": "5s",
        },
        retry_config={"max_retries": 3},
    )


@lru_cache(maxsize=256)
def _index(store: str, key: str) -> Index:
    size = obstore.head(_open(store), key)["size"]
    return logpack.read_index(lambda offset, length: _fetch(store, key, offset, length), size)


@lru_cache(maxsize=64)  # about 16 MiB
def _frame(store: str, key: str, number: int) -> bytes:
    try:
        return logpack.frame_of(
            _index(store, key),
            number,
            lambda offset, length: _fetch(store, key, offset, length),
        )
    except BaseError as error:
        raise StoreAway(error) from error


def _fetch(store: str, key: str, offset: int, length: int) -> bytes:
    return bytes(obstore.get_range(_open(store), key, start=offset, length=length))
