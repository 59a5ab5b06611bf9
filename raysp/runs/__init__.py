"""One question from its spec to a validated, stored answer. Knows neither Ray nor models."""
