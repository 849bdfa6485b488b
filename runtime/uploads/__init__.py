"""Videos that a browser uploads: received, scanned one at a time in a process of their own, deleted."""
