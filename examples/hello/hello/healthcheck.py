"""Exit code 0 when the server beside us answers."""

from http.client import HTTPConnection

server = HTTPConnection("127.0.0.1", 8080, timeout=5)
server.request("GET", "/healthz")
raise SystemExit(server.getresponse().status != 200)
