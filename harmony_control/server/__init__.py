"""The embedded NATS server of a control plane.

`config` says what nats.conf holds, `apply` brings the file and the running server up to date, `process`
runs it, `buckets` makes its streams. Nothing is imported here, so that who only edits the configuration
does not wait for a NATS client to load.
"""
