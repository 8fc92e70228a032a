"""Dockerfile text in, one frozen dataclass per instruction out.

The syntax is BuildKit's (a port of its parser does the lines, heredocs and
JSON forms); flags, values and what must be where are checked here.
"""

from builders.dockerfile.parse import Dockerfile, parse_dockerfile, parse_trigger

__all__ = ["Dockerfile", "parse_dockerfile", "parse_trigger"]
