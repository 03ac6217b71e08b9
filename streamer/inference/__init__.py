"""Models that run on another machine: the server, the client, and what goes between them (docs/inference.md).

The cut is the engine: tensors in, tensors out. Placing, letterboxes, NMS, counting and the journal stay where the
microscope is.
"""
