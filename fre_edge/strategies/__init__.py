"""The ways to find the subspace of good features, behind one narrow interface.

`base` holds what they share, `sketch` the state that merges; then one module a strategy, and
`choose`, which picks one by size and memory. The maths is numpy's; torch comes with `autoencoder`.
"""
