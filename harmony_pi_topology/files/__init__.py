"""Regular files."""
