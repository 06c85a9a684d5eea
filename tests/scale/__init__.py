"""Ten thousand devices: whole agents, many to a process, each over a device in memory."""
