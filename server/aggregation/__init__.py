"""The sums: what may enter one, and how it is added. Nothing individual is stored."""
