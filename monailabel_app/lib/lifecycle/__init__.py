"""Start and stop of the server: settings, logging, background tasks and clean-up."""
