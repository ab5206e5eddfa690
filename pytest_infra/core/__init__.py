"""What every other part stands on: errors, units, names, waiting, requirements, resources, processes, leases, nodes.

Nothing in here imports pytest or a third-party package at import time.
"""
