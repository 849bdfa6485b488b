"""The machine under test: its description, its limits, its CPU load, and the cost of a network on it."""
