"""Webhooks a second, each with its commit and wake-up, against an empty view on the same server.

    python benchmarks/intake.py [--seconds 4] [--rounds 3] [--clients 4] [--postgresql]

Prints requests a second of both, their ratio (aim: 50 %), the answers' p50 and p99, and what one
request costs the server in CPU time, which a busy machine changes least. The two take turns, so
that whatever else the machine does is shared by both.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.postgresql import cluster
from tests.webserver import Web, redis, web

AIM = 0.5


def main() -> int:
    given = arguments()
    with server(postgresql=given.postgresql) as site:
        requests = {
            "empty view": lambda: httpx.Request("POST", f"{site.url}/empty/", content=b"{}"),
            "webhook": site.request,
        }
        for make in requests.values():
            measure(make, clients=given.clients, seconds=0.5)  # to warm up
        before = site.deliveries()
        took: dict[str, list[float]] = {name: [] for name in requests}
        spent = dict.fromkeys(requests, 0.0)
        for _ in range(given.rounds):
            for name, make in requests.items():
                before_it = site.cpu_seconds()
                took[name] += measure(make, clients=given.clients, seconds=given.seconds)
                spent[name] += site.cpu_seconds() - before_it
        assert site.deliveries() - before == len(took["webhook"]), "one was lost"
    rates = {name: len(times) / given.rounds / given.seconds for name, times in took.items()}
    for name, times in took.items():
        cuts = [1000 * cut for cut in statistics.quantiles(times, n=100)]
        cpu = 1000 * spent[name] / len(times)
        print(
            f"{name:<11} {rates[name]:7.0f}/s   p50 {cuts[49]:6.1f} ms   p99 {cuts[98]:6.1f} ms"
            f"   CPU {cpu:5.2f} ms"
        )
    ratio = rates["webhook"] / rates["empty view"]
    print(f"ratio       {100 * ratio:7.0f} %   aim {100 * AIM:.0f} %")
    return 0 if ratio >= AIM else 1


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=4.0, help="of one round of one kind")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--postgresql", action="store_true", help="instead of SQLite")
    return parser.parse_args()


@contextmanager
def server(*, postgresql: bool) -> Iterator[Web]:
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/var/tmp"))) / "home"
        url = {"GANTRY_DATABASE_URL": stack.enter_context(cluster()).url} if postgresql else {}
        site = stack.enter_context(web(home, app="benchmarks.empty:application", **url))
        stack.enter_context(redis(home))
        yield site


def measure(make: Callable[[], httpx.Request], *, clients: int, seconds: float) -> list[float]:
    """Seconds of each answer, of ``clients`` that ask without a pause."""
    took: list[float] = []
    lock, end = threading.Lock(), time.monotonic() + seconds

    def ask() -> None:
        with httpx.Client(trust_env=False, timeout=30) as client:
            while (began := time.monotonic()) < end:
                with lock:
                    request = make()
                answer = client.send(request)
                assert answer.is_success, answer.text
                took.append(time.monotonic() - began)

    threads = [threading.Thread(target=ask) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return took


if __name__ == "__main__":
    sys.exit(main())
