"""Writes the embedded sample of the ALUE tasks: small, deterministic, and all of its own making.

The texts are composed from hand-written words and sentence frames, so that the sample can be shipped with the
program, which most of the real files cannot.
"""
