"""Rollouts: a new generation of a class, wave by wave.

documents   reads, verifies, signs and writes the fleet index, class manifests and gates
members     who belongs to a class, and how each is
judge       pure: how each member stands
state       pure: what the gate is to be next
memory      what one controller has seen itself
controller  looks, decides, writes; may die at any moment
all_classes the same for every class of a fleet at once
"""
