"""The parts of a model (embeddings, layers, pooler, head), and a test of what the model supports."""
