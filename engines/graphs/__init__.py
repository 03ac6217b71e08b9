"""ONNX in, ONNX out: inputs, heads and Grad-CAM added to a graph, its precision changed, its answers compared.

Imports the base and the geometry only.
"""
