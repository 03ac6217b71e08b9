"""Quality control: whether two counts agree, and whether what is measured of slides stays as it was.

counts: what is compared, of a journal or a table. classes: two counts of a slide by class; matched_cells: kappa of the
cells that both named; over_slides: two counts of several slides. reference: a slide counted again beside its accepted
result. measures: what of a slide is watched over time; westgard: the rules; levey_jennings: the charts of these;
charts: their geometry. page: all of it as one HTML file.
"""
