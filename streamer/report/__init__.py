"""What a slide shows, as plain data, and the page that is made of it.

slide: all that a session of a journal shows, for whoever presents it. gallery: its cells with their pictures. film: the
visited area. growth: the count over time. quality: what was measured, beside its limits. review: how far people are
with it. provenance: what was counted, by what, when. charts: the geometry of the charts. page: all of it as one HTML
file, from the templates; templating: what every page of ours has in common. pdf: the same on paper.
"""
