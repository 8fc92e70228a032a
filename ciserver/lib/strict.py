"""Bodies that may hold nothing but what can be written: a field that is misspelt, or belongs to
another address, is refused by its name instead of being passed over with a 200."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rest_framework import serializers


class Strict(serializers.Serializer[Any]):
    """A base beside another serializer, or alone."""

    def to_internal_value(self, data: Any) -> Any:
        """Raises ValidationError, which names each field that cannot be written."""
        if isinstance(data, Mapping):
            wrong = {str(name): [self._why(str(name))] for name in data if self._unfit(name)}
            if wrong:
                raise serializers.ValidationError(wrong)
        return super().to_internal_value(data)

    def _unfit(self, name: Any) -> bool:
        return name not in self.fields or self.fields[name].read_only

    def _why(self, name: str) -> str:
        if name in self.fields:
            return "This cannot be changed."
        can = ", ".join(sorted(key for key in map(str, self.fields) if not self._unfit(key)))
        return f"There is no such field here. These can be changed: {can}."
