"""Bundles that somebody loads on the device itself."""
