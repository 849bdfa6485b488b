"""WebSocket and HTTP server: broadcasting, access rules, metrics, JSON Lines output and web pages."""
