"""What every app may use: the outbox, states, sealing, errors."""
