"""Parts of text files."""
