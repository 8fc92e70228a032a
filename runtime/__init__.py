"""Sandboxes: one isolated process tree each, with limits and a receipt.

Knows no image, no Dockerfile and no Django. Handed a root file system, mounts
and limits, it runs one process by an OCI runtime and says what that cost.
Usable alone: ``python -m runtime``.
"""
