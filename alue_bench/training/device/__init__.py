"""The hardware that a training runs on: number formats, memory, random states, CUDA graphs and device errors."""
