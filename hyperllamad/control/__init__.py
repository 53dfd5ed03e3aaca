"""The room `control`: the admin socket."""
