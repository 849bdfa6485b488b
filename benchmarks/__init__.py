"""Programs that measure and leave a record."""
