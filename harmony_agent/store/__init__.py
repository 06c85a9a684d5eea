"""What survives a restart: the only SQL, and the files beside it."""
