"""The messages, requests and replies of docs/protocol.md, and how records become messages.

Imports the records and the base of engines.
"""
