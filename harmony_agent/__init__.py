"""The agent: a Harmony executor on one device.

    bus -> desired -> queue -> interpreter -> book -> reporter -> bus

`agent.py` shows the whole way on one screen; every other module is one step of it.
"""
