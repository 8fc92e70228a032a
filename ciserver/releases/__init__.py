"""Releases, environments, hosts and deployments."""
