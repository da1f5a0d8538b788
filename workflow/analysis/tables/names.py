"""Name the table that is not an experiment's. Imports nothing heavy."""

THEORY = "theory"  # the simulation's table and the figure drawn from it
