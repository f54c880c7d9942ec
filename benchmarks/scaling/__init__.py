"""How time and memory of a fit grow with photos, features, components and processes.

``python -m benchmarks.scaling --help``, from the root of the repository.
"""
