"""Live inspection: cameras, streams and folders that fill up, scored as they come."""
