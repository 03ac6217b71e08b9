"""Where every frame lies on the slide, found from the frames alone.

Imports the records and the base of engines.
"""
