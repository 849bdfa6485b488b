"""Report of a scanned video: timeline, frames with the highest scores, verdict in words; HTML and JSON."""
