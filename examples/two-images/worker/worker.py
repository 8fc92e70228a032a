"""Fetches jobs and does them."""

import json
import sys
from urllib.request import urlopen

with urlopen(sys.argv[1], timeout=5) as answer:
    for job in json.load(answer):
        print("did", job, "=", sum(job["add"]))
