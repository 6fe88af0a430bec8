"""How progress is shown: what a line says, how it fits, and where it goes."""
