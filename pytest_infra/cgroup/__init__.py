"""Control groups: limits, accounting and events, over version 1, version 2 and both at once."""
