"""The command `unmask scan`."""
