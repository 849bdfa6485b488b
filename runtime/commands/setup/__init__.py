"""Setup of `unmask monitor`: from the command line and a file to options that are ready to run."""
