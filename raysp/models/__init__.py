"""Language models: loading them, keeping them in memory, and scoring many ablations of an input at a time."""
