"""Actions on a finished run: prune a model, select training examples, score a data run by its LDS."""
