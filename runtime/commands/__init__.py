"""The commands `unmask monitor` and `unmask scan`, and what a person sees of them."""
