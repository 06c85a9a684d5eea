"""A fleet as a folder: what is described in files, compared with what is signed, and made so.

model   what stands in fleet.yaml
folder  reads it, and the Score files that it names
plan    what is another than what is signed; nothing is written
apply   writes just that
"""
