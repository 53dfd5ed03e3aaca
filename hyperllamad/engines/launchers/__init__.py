"""Programs run by file path with the python of an engine home; nothing here is imported by the daemon."""
