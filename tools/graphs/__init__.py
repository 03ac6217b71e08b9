"""Between PyTorch and ONNX, both ways: networks as graphs, and the weights of a graph that ships."""
