"""TensorRT as a backend: `builder` makes plans, `manifest` keeps them, `runtime` runs them on CUDA streams.

Nothing here imports tensorrt or pycuda on import; `libraries.load` does, with an error that says what to install.
"""
