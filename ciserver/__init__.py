"""The service: webhooks, pipelines, releases and the pages that show them."""
