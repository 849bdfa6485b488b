"""WebSocket and HTTP server: distribution of messages, access rules, metrics, JSON Lines output and web pages."""
