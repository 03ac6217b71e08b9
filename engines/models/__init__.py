"""What looks at pictures: detector, classifier, segmenter, explainer, how they are loaded, what their answers mean.

The top room of engines: it imports all the others.
"""
