"""The generator of the embedded sample of the ALUE tasks: small, deterministic, and free of third-party text.

The texts are composed from hand-written words and sentence frames, so that the sample can be shipped with the program.
Most of the real files cannot.
"""
