"""The commands `unmask monitor` and `unmask scan`, and their output in a terminal."""
