"""From Scores to a signed manifest in the bucket, and until it is in order."""
