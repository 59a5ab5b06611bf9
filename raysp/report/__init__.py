"""Reports of runs, each one self-contained HTML file. This room reads the store and knows nothing of models or Ray."""
