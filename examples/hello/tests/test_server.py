import os
import threading
import unittest
from urllib.error import HTTPError
from urllib.request import urlopen

from hello.__main__ import serve


class Server(unittest.TestCase):
    def setUp(self):
        self.server = serve(port=0)
        self.addCleanup(self.server.server_close)
        threading.Thread(target=self.server.serve_forever, args=[0.01], daemon=True).start()
        self.addCleanup(self.server.shutdown)

    def get(self, path):
        with urlopen(f"http://127.0.0.1:{self.server.server_port}{path}", timeout=5) as answer:
            return answer.read().decode()

    def test_is_healthy(self):
        self.assertEqual(self.get("/healthz"), "ok\n")

    def test_shows_the_commit_it_was_built_from(self):
        os.environ["GANTRY_COMMIT"] = "1234abc"
        self.addCleanup(os.environ.pop, "GANTRY_COMMIT")
        self.assertIn("commit 1234abc", self.get("/"))

    def test_refuses_what_is_not_there(self):
        with self.assertRaises(HTTPError) as refused:
            self.get("/secret")
        self.assertEqual(refused.exception.code, 404)
        refused.exception.close()
