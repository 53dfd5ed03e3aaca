"""hyperllamad: one daemon that supervises engine processes and serves them through the Ollama API."""

from importlib.metadata import version

__version__ = version("hyperllama")
