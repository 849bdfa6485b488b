"""The deployed detector: bundle, engines, buffer, verdict, monitor and server. Never imports torch."""
