"""What is asked for behind the question mark of an address of the API."""

from __future__ import annotations

import re

from rest_framework import serializers
from rest_framework.request import Request


def number(request: Request, name: str, default: int) -> int:
    """The whole number ``name``. Raises ValidationError."""
    text = request.query_params.get(name, str(default))
    if not re.fullmatch("[0-9]{1,9}", text):
        raise serializers.ValidationError({name: "This must be a whole number."})
    return int(text)
