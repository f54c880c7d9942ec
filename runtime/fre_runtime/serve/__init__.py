"""fre-serve: a page to watch a line and try photos on, and KServe v2 endpoints, over one model."""
