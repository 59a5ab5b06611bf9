"""raysp: which components of a language model's input, mechanism or training, alone and together, made it say so."""
