"""WebSocket and HTTP server: broadcaster, client queues, access rules, metrics and web pages."""
