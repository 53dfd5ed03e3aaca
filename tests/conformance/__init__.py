"""What a real Ollama answered (golden.json) to the requests of cases.json, and how to hold a server against it.

golden.json was recorded from Ollama (commit fb3076099, SmolLM2-135M-Instruct as `m`) and is reduced to facts: status,
the headers clients look at, and the shape of the body.  It is evidence: never record it from our own server.
"""
