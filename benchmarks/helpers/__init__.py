"""Helper processes that play the other side: live cameras and WebSocket subscribers."""
