"""`harmony serve`: the fleet over HTTP, for browsers and programs; it looks, and never signs for a device.

    Fleet -> board (what is shown, in columns) -> routes -> page

Only `harmony_control.cli.serve` imports it, for it needs packages of its own (the extra ``serve``). Its
routes call what `Fleet` offers, and nothing beneath.
"""
