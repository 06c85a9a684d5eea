"""Settings of the host as a whole."""
