"""hyperllamad: one daemon that supervises engine processes and serves them through the Ollama API."""
