"""Reports: one HTML file that opens offline and prints (``pip install 'fre-edge[report]'``)."""
