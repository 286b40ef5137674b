"""The hardware under a training: number formats, memory, random states, CUDA graphs and device errors."""
