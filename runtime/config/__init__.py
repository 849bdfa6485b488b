"""Configuration of `unmask monitor`: one object, from a file and from the command line alike."""
