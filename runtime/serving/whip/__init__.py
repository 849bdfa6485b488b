"""WebRTC senders by WHIP (RFC 9725): browsers, OBS and others push video to a source. Needs aiortc."""
