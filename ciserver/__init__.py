"""The service: webhooks, pipelines, releases and the pages that show them."""

__version__ = "0.1.0"
