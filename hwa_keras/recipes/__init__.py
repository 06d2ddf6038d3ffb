"""Recipes: whole trainings, put together from the parts of this package."""

from hwa_keras.recipes import classifier, two_phases, workers
from hwa_keras.recipes.best_epoch import BestEpoch
from hwa_keras.recipes.language_model import (
    LanguageModelRecipe,
    tokens_of,
    tune_language_model,
)
from hwa_keras.recipes.task import Task, TwoPhaseSettings
from hwa_keras.recipes.year_on_chips import follow_for_a_year

__all__ = [
    "BestEpoch",
    "LanguageModelRecipe",
    "Task",
    "TwoPhaseSettings",
    "classifier",
    "follow_for_a_year",
    "tokens_of",
    "tune_language_model",
    "two_phases",
    "workers",
]
