"""Answers to questions about studies, from one engine for all routes."""
