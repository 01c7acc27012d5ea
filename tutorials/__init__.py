"""Tutorials as notebooks with their outputs, and ``build``, which runs them anew."""
