"""What stops an operator's command: one clear sentence and the next step."""

from __future__ import annotations


class OpsError(Exception):
    """``str()`` is the sentence, ``next_step`` what to do about it, ``details`` a log's end."""

    def __init__(self, sentence: str, *, next_step: str, details: str = "") -> None:
        super().__init__(sentence)
        self.next_step = next_step
        self.details = details
