"""What several resource types share: threads, batches, watching paths, D-Bus, probes."""
