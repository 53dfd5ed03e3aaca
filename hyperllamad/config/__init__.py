"""The configuration: TOML files, then the environment Ollama users set, read once into one frozen Config.

Nothing here acts on the configuration.
"""
