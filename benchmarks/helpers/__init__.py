"""Peers of the program under test: live cameras and WebSocket subscribers in processes of their own."""
