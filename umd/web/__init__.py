"""The page of `umd serve`: ask a model in a browser, and see what it answers to a data set's test questions."""
