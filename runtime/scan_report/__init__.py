"""Report of a scanned video: timeline, loudest moments, verdict in words; one HTML page, and JSON."""
