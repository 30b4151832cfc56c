"""Records on disk: corrections, answers, scores and adapters, and the trace between them.

Imports no model. Files are replaced whole or not at all (`durable`), rows are kept in SQLite (`database`).
"""
