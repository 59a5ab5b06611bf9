"""A service of raysp over its REST interface, from any machine that reaches it."""
