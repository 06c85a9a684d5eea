"""What is reported to the control plane: this package only reads."""
