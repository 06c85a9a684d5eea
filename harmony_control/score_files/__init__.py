"""Score files: Python, YAML and JSON as people write them, as entries; and all that is wrong with one."""
