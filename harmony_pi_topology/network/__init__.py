"""How network profiles are brought to what they should be, whatever daemon keeps them.

    settings, records -> plan, profile_plan -> health, trial -> reconciler, removal

A `NetworkReconciler` stands on a `NetworkDaemon`: NetworkManager on a device, a dictionary in tests. So the
fake goes the very same way as the real one, trials and what becomes of them included.
"""
