"""The room `supervision`: does what core decides; never decides."""
