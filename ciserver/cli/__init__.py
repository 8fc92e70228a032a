"""The ``gantry`` client: a face of the HTTP API. Imports nothing else of ciserver."""
