"""What is kept on disk: corrections, answers, scores, adapters, and what leads from one to another.

Imports no model. Files are replaced whole or not at all (`durable`), rows are in SQLite (`database`).
"""
