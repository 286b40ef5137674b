"""The generator of the embedded sample: a small data set for each built-in task, in the format of the real files.

Most of the real files may not be redistributed. The texts of the sample are composed from hand-written words and
sentence frames, without any third-party text, so that the sample can be shipped with alue-bench. The generator is
deterministic.
"""
