"""The referee: anybody's answers to a data set's questions, read, matched, graded, and laid beside what a fool gets."""
