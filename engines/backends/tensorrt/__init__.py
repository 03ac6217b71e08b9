"""TensorRT, and that for RTX: `builder` makes plans, `manifest` keeps them, `runtime` runs them on CUDA streams.

Nothing here imports a library of NVIDIA's on import; `libraries.load` does, with an error that says what to install.
"""
