"""The only writer: one Score after another, from its plan to its Outcome."""
