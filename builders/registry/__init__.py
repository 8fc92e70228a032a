"""Registries: pull and push by the OCI distribution-spec 1.1.

https://github.com/opencontainers/distribution-spec/blob/main/spec.md
"""

from builders.registry.auth import Credentials, Scope
from builders.registry.client import PushResult, Registry, Sent
from builders.registry.known import KnownRegistries

__all__ = ["Credentials", "KnownRegistries", "PushResult", "Registry", "Scope", "Sent"]
