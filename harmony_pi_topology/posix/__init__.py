"""Files of a device, by POSIX calls that no race and no power cut can hurt."""
