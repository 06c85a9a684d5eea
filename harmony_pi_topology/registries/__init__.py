"""Registries of images, as podman uses them."""
