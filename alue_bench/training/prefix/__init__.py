"""The outputs of frozen layers, which are computed once and kept on disk or in an accelerator's memory."""
