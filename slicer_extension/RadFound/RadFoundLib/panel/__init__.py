"""What the user sees: the panel, its sections, and the conversation as HTML."""
