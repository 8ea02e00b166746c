"""The first update engine: what must be right for an unverified image never to be chosen."""
