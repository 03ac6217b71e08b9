"""The review page and the HTTP API beside it. FastAPI and uvicorn, which serve it, are the extra `review`.

guard: who may ask at all, and what every answer forbids the browser; read it first. app: the addresses. pages: what
every page has. bodies: what is posted. presented: what a desk gives, as the page and the API show it. keys: the key of
each class. events: changes as they come. frames: the pictures of frames. serving: address, TLS and uvicorn. static/:
the page itself, files that are served as they are.
"""
