"""The models that have a name: their cards, where their files are, and how a name or a path becomes a graph.

The files that ship lie here too. Imports the base, the geometry and graphs.
"""
