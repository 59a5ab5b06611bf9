"""What is asked: validated specs of runs, lenses and explorers, from YAML, flags or Python. Loads no model and opens no store."""
