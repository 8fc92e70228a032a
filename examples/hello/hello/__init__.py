"""A web server that says which commit it was built from."""
