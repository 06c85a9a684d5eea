"""Measures Harmony against floors and peers. ``python -m benchmarks`` prints one line a measurement.

floors/  the least that does the same work: the same libraries, none of our architecture
peers/   the tools that people use for the same work
push, start, memory, idle, files, cli: ours, each beside its floor, in turn: A B A B
"""
