"""Review: what people say of the cells of a slide, until somebody signs it.

desk: what a page or a command does with a slide, and what it is told; read it first. journal_desk: that of a finished
slide's journal. live_desk: that of a run elsewhere, which stays the only writer.
"""
