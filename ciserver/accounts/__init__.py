"""Users, tokens, roles and the audit log."""
