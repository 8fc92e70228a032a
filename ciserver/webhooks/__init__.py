"""Deliveries: what forges and pushes told us."""
