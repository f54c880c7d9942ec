"""The runtime's commands: fre-run, fre-eval, fre-bench, fre-info."""
