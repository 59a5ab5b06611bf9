"""The web end of a service: a REST interface and pages. This room knows nothing of Ray, models or explorers; `runtime/web_end.py` runs it."""
