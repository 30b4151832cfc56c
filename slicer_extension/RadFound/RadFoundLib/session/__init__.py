"""The session: connection, conversations, unsent corrections, background jobs."""
