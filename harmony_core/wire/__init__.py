"""What is on the wire, as docs/wire.md specifies it."""
