"""Real network labs for pytest."""
