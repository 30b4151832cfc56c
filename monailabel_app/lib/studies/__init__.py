"""Storage of studies: the served folder, uploads and sessions."""
