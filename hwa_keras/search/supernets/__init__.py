"""Supernets: all networks of a space in one, which share their weights."""

from hwa_keras.search.supernets import spaces
from hwa_keras.search.supernets.architecture import ArchitectureSpace, Stage
from hwa_keras.search.supernets.supernet import Supernet

__all__ = ["ArchitectureSpace", "Stage", "Supernet", "spaces"]
