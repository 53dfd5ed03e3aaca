"""The room `store`: models on disk."""
