"""What takes the messages of a run besides the network and the dashboard: JSON Lines, metrics, pictures.

Imports the protocol and the records.
"""
