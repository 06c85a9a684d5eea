"""The device as a whole, booted anew."""
