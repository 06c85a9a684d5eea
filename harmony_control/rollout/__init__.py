"""Rollouts: a new generation of a class, wave by wave.

documents   reads, verifies, signs and writes the fleet index, class manifests and gates
members     who belongs to a class, and how each is
state       pure: what the gate is to be next
controller  looks, decides, writes; may die at any moment
"""
