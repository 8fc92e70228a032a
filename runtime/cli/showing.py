"""What commands print: both streams of the program, as bytes or as events, and the receipt."""

from __future__ import annotations

import argparse
import base64
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from runtime.errors import SpecError
from runtime.sandbox import Piece, Stream, numbered
from runtime.spec import Outcome, Receipt


def printer(arguments: argparse.Namespace) -> Callable[[Stream, bytes], None]:
    """What takes the output of one run, as ``--events`` says."""
    return numbered(_print_event) if arguments.events else _print


def _print(stream: Stream, data: bytes) -> None:
    out = sys.stdout.buffer if stream is Stream.STDOUT else sys.stderr.buffer
    out.write(data)
    out.flush()


def _print_event(piece: Piece) -> None:
    words = {
        "seq": piece.number,
        "at": round(piece.at, 3),
        "stream": piece.stream.name.lower(),
        "data": base64.b64encode(piece.data).decode(),
    }
    print(json.dumps(words), flush=True)


def check_receipt(file: Path | None) -> None:
    """Before the program runs, perhaps for an hour."""
    if file is not None and (file.is_dir() or not os.access(file.absolute().parent, os.W_OK)):
        raise SpecError(
            f"The receipt cannot be written to {file}.",
            hint="Name a file in a folder that is there.",
        )


def tell(receipt: Receipt, arguments: argparse.Namespace) -> None:
    """How the program ended, to whoever looks, to ``--events`` and to ``--receipt``."""
    file: Path | None = arguments.receipt
    if receipt.outcome is not Outcome.EXITED:
        print(f"killed: {receipt.detail}", file=sys.stderr)
    elif receipt.detail:
        print(f"runtime: {receipt.detail}", file=sys.stderr)
    if receipt.kept:
        print(
            f"runtime: kept for {receipt.kept_until - time.time():.0f} s; look at what it left:"
            f" python -m runtime exec {receipt.kept} -- sh -c 'ls -la'",
            file=sys.stderr,
        )
    if arguments.events:
        print(json.dumps({"receipt": asdict(receipt)}), flush=True)
    if file is not None:
        file.write_text(json.dumps(asdict(receipt), indent=2) + "\n")


def shown(command: str) -> str:
    """A project's own words, on an administrator's terminal: no escape sequence, one line."""
    return "".join(c if c.isprintable() else "?" for c in command)
