"""From the boxes of placed frames to cells, each counted once, and to their classes and the differential.

Imports the stage, the configuration, the records and engines.
"""
