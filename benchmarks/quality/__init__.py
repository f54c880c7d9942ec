"""How well the project finds defects: the shipped commands, sweeps around the defaults, plots.

``python -m benchmarks.quality --help``, from the root of the repository.
"""
