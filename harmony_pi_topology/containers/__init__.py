"""Containers, by podman."""
