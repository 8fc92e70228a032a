"""Starts, shows and tests an installation. No Django here, and nothing imports this package."""
