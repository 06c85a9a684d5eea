"""What stands on the server for one device, as a file that is carried to it: `harmony bundle`."""
