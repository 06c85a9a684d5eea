"""The fleet, one row a device: what a list, a page and the metrics show alike."""
