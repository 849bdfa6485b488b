"""The commands that watch live video: `unmask monitor` and `unmask fleet`."""
