"""The parts of a model: embeddings, layers, pooler and head, and a trial of what the model can do."""
