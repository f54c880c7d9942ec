"""The documentation site: `make docs`.

``pages`` gathers and writes what is read, ``finish`` renders the equations, ``links`` checks the
result; in between Zensical turns Markdown into HTML.
"""
