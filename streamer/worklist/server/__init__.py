"""The page of a list and the HTTP API beside it, behind the guard of the review's server. FastAPI and uvicorn, which
serve it, are the extra `review`. It only reads.

app: the addresses. static/: the page, files that are served as they are; what it has in common with the review's page,
its style and how the server is asked, is that page's.
"""
