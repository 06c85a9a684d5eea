"""What somebody else has changed."""
