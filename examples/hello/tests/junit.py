"""Runs the tests and writes their results as JUnit XML: ``python -m tests.junit FILE``."""

import sys
import time
import unittest
from pathlib import Path
from xml.etree import ElementTree


class Recorder(unittest.TextTestResult):
    def __init__(self, *words, **options):
        super().__init__(*words, **options)
        self.suite = ElementTree.Element("testsuite", name="hello")

    def startTest(self, test):
        super().startTest(test)
        owner, _, name = test.id().rpartition(".")
        self.case = ElementTree.SubElement(self.suite, "testcase", classname=owner, name=name)
        self.began = time.monotonic()

    def stopTest(self, test):
        self.case.set("time", f"{time.monotonic() - self.began:.4f}")
        super().stopTest(test)

    def addFailure(self, test, error):
        super().addFailure(test, error)
        self.note("failure", error)

    def addError(self, test, error):
        super().addError(test, error)
        self.note("error", error)

    def note(self, kind, error):
        child = ElementTree.SubElement(self.case, kind, message=str(error[1]))
        child.text = self.failures[-1][1] if kind == "failure" else self.errors[-1][1]


def main(path):
    tests = unittest.defaultTestLoader.discover("tests", top_level_dir=".")
    result = unittest.TextTestRunner(verbosity=2, resultclass=Recorder).run(tests)
    counts = {
        "tests": result.testsRun,
        "failures": len(result.failures),
        "errors": len(result.errors),
    }
    for name, count in counts.items():
        result.suite.set(name, str(count))
    Path(path).write_bytes(ElementTree.tostring(result.suite))
    return not result.wasSuccessful()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
