"""The agent: a Harmony executor on one device.

    bus -> desired state -> queue -> controller -> status -> reporter -> bus

`agent.py` shows the whole way on one screen; every other module is one step of it.
"""
