"""The pages of the web end: each is rendered from a template, and its script asks the REST interface. No page has a script or a style within it."""
