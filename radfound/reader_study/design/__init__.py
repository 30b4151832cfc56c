"""What a reader study consists of: its settings, plan, order of cases, and the key that stays secret."""
