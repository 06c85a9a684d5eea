"""File systems that are mounted by systemd."""
