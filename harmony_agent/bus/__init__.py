"""The bus: the only importer of nats."""
