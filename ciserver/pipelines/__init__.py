"""From commit to verdict: planning, running, logs."""
