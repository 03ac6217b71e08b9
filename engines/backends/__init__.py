"""What runs a graph: ONNX Runtime, TensorRT, the script of a test, and the choice between them.

Imports the base, the geometry, graphs and the zoo's cards.
"""
