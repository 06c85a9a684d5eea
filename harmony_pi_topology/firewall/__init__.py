"""What may come in, filtered by the kernel."""
