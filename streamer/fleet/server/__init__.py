"""The page of many microscopes, of the review's style."""
