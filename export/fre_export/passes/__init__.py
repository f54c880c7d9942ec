"""Rewriting the exported graph for speed, one pass a file; none changes what the graph says."""
