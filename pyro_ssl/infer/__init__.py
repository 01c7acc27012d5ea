"""Inference for models with an ``ssl_transition``."""

from .particle_gibbs import ParticleGibbs, ParticleGibbsKernel

__all__ = ["ParticleGibbs", "ParticleGibbsKernel"]
