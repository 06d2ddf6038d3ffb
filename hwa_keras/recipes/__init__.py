"""Recipes: whole trainings, put together from the parts of this package."""

from hwa_keras.recipes.language_model import (
    LanguageModelRecipe,
    tokens_of,
    tune_language_model,
)

__all__ = ["LanguageModelRecipe", "tokens_of", "tune_language_model"]
