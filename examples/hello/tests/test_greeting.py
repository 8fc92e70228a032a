import unittest

from hello.greeting import greet


class Greeting(unittest.TestCase):
    def test_names_the_commit(self):
        self.assertIn("commit 1234abc", self.greeting())

    def test_names_the_environment_and_the_release(self):
        self.assertIn("from qa: v7", self.greeting())

    def greeting(self):
        return greet(commit="1234abc", release="v7", environment="qa")
