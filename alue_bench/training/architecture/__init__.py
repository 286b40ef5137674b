"""The parts of a model (embeddings, layers, pooler, head), and a trial of what the model supports."""
