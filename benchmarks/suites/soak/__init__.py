"""A long run of `unmask monitor` on four RTSP cameras, with a fault every minute."""
