"""Volumes, by podman."""
