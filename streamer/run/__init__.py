"""A run while it goes on: the threads of the pipeline, the session of each source, commands to them.

Imports the journal, the analysis and what is below them, but neither the network nor the sinks nor the dashboard.
"""
