"""The design of a reader study: settings, plan, order of cases, and the secret key."""
