"""What each command of the command line does; cli.py holds their options.

Imports every other room; nothing but cli.py imports this one.
"""
