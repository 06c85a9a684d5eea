"""What is told: only reads."""
