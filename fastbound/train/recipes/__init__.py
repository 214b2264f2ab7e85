"""Training methods as data: a recipe holds every number of a run and gives the loss of one step.

A new method is one file with one frozen dataclass, and one line in `fastbound.choices.METHODS`; a user's own recipe
needs no line (see `files`). A published configuration is one entry in a file of `fastbound.train.configs`. The trainer
never asks for the name of a recipe: all differences are in its methods.
"""

from fastbound.train.recipes.adversarial import AdversarialRecipe as AdversarialRecipe
from fastbound.train.recipes.catalogue import METHODS as METHODS
from fastbound.train.recipes.catalogue import as_data as as_data
from fastbound.train.recipes.catalogue import find_method as find_method
from fastbound.train.recipes.catalogue import from_data as from_data
from fastbound.train.recipes.catalogue import resolve as resolve
from fastbound.train.recipes.certified import CertifiedRecipe as CertifiedRecipe
from fastbound.train.recipes.crown_ibp import CrownIBPRecipe as CrownIBPRecipe
from fastbound.train.recipes.expressive import CCIBPRecipe as CCIBPRecipe
from fastbound.train.recipes.expressive import ExpIBPRecipe as ExpIBPRecipe
from fastbound.train.recipes.expressive import ExpressiveRecipe as ExpressiveRecipe
from fastbound.train.recipes.expressive import MTLIBPRecipe as MTLIBPRecipe
from fastbound.train.recipes.files import RecipeFileError as RecipeFileError
from fastbound.train.recipes.gloro import GloRoRecipe as GloRoRecipe
from fastbound.train.recipes.ibp import IBPRecipe as IBPRecipe
from fastbound.train.recipes.natural import NaturalRecipe as NaturalRecipe
from fastbound.train.recipes.pgd import PGDRecipe as PGDRecipe
from fastbound.train.recipes.ramped import RampedRecipe as RampedRecipe
from fastbound.train.recipes.recipe import Recipe as Recipe
from fastbound.train.recipes.sabr import SABRRecipe as SABRRecipe
from fastbound.train.recipes.short_warmup import ShortWarmupRecipe as ShortWarmupRecipe
from fastbound.train.recipes.singleprop import AdaptiveSinglePropRecipe as AdaptiveSinglePropRecipe
from fastbound.train.recipes.singleprop import SinglePropRecipe as SinglePropRecipe
from fastbound.train.recipes.step import Losses as Losses
from fastbound.train.recipes.step import Step as Step
