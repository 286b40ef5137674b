"""The hardware on which a model trains: number formats, memory, random states, CUDA graphs and device errors."""
