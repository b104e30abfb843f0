"""How fast ``refimpl`` is on NumPy, beside PyTorch on the CPU: ``make bench``."""
