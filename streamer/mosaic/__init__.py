"""The visited area of a slide as one picture, with the counted cells marked.

visited: what a journal knows of a session's places. places: where every frame lies, at the end of all corrections, and
which frames are needed. pictures: where the frames' pixels come from. light: the lamp, estimated from the frames and
taken out. stitching: frames to one canvas an island. layout: islands side by side. scale: micrometres a pixel. marks:
cells, legend, scale bar. compose: puts them together. deep_zoom: what is too large for one file.
"""
