"""Questions about studies, answered by one engine, whichever route they come by."""
