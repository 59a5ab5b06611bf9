"""What a data run says of each of its queries, how far that foretells trainings, and what to do with the training set.

`queries` and `asked` are a run's answers, `methods` and `scores` how they and others are judged, `scoring` and `curating` what the commands `lds` and `select` do.
"""
