"""RadVLBench: tasks, metrics and the commands that print the tables."""
