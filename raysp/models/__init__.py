"""Language models: loading them, holding them, scoring many ablations of one input at a time."""
