"""A fleet as a folder: what is described in files, compared with what is signed, and made so.

model          what stands in fleet.yaml
typed          what stands in fleet.py: the same, for type checkers
folder         reads fleet.yaml, and the Score files that it names
program        reads fleet.py
plan           what is another than what is signed; nothing is written
rollout_words  how a class is rolled out, to be compared and shown
merged         what one device would be in all
explain        why a Score is as it is on a device
apply          writes just what differs
"""
