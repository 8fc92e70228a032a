"""Everything about images: Dockerfile in, sealed OCI image out.

Uses ``runtime`` for whatever runs; knows nothing of Django.
Usable alone: ``python -m builders``.
"""
