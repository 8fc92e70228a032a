"""Day two: looking at, entering, stopping and starting what is deployed.

The web process may not touch an engine. It writes down what is asked (``asking``) and passes on
what comes back (``wire``, ``api``); the watcher, which runs beside the workers, does it
(``attending``, ``verbs``).
"""
