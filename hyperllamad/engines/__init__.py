"""The room `engines`: how each engine is launched and spoken to; answers with data, never acts."""
