"""Answers to the control plane's requests."""
