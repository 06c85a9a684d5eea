"""Floors: the least that does the same work with the same libraries. Nothing of Harmony is imported.

Each is a program of its own, run as ``python -c "from benchmarks.floors.f1 import main; main()"``; what
it needs to know stands in a JSON file that its only argument names.
"""
