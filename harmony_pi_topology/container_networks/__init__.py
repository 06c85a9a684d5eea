"""Networks between containers, by podman."""
