"""Exit code 0 when the server beside us answers."""

from urllib.request import urlopen

with urlopen("http://127.0.0.1:8080/healthz", timeout=2) as answer:
    raise SystemExit(answer.status != 200)
