"""The room `front`: the API on port 11434."""
