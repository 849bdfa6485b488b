"""Access to the server: Host and Origin rules, tokens and their rights, and failed attempts."""
