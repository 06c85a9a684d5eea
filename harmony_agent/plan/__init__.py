"""What would change, and whose it is."""
