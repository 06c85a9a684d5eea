"""Alerts to people: web hooks and e-mails when something is wrong with the fleet, and when it is over.

    rows, rollouts, root -> find: what is wrong, in groups -> records in a bucket: what was told, and by whom
    -> message -> channel

`harmony serve --alerts FILE` runs it. Of several beside each other, the one that first writes a record tells.
"""
