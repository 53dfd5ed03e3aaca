"""The room `core`: decides; pure, no I/O, no clock."""
