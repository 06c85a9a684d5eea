"""The control plane on the bus: the only importer of nats here."""
