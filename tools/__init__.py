"""Programs for maintainers of alue-bench; they are not installed with it.

They pre-train the bundled model, write the embedded sample, compare the results of two checkouts, and adapt the
documentation site.
"""
