"""The whole service under kill -9: what was acknowledged is built once, or visibly not.

``test_faults.py`` is the short form; ``python -m tests.faults --help`` the long one. Deployments
have a long form of their own: ``python -m tests.faults.deployments --help``.
"""
