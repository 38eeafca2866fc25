"""Access tokens, and the answers kept under idempotency keys."""
