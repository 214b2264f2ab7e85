"""Training methods as data: a recipe holds every number of a run and gives the loss of one step.

A new method is one file with one frozen dataclass, and one line in `fastbound.choices.METHODS`; one of a user's own
needs no line (`files`). A published configuration is one entry in a file of `fastbound.train.configs`. The trainer asks
the recipe and never its name.
"""

from fastbound.train.recipes.adversarial import AdversarialRecipe as AdversarialRecipe
from fastbound.train.recipes.catalogue import METHODS as METHODS
from fastbound.train.recipes.catalogue import as_data as as_data
from fastbound.train.recipes.catalogue import find_method as find_method
from fastbound.train.recipes.catalogue import from_data as from_data
from fastbound.train.recipes.catalogue import resolve as resolve
from fastbound.train.recipes.certified import CertifiedRecipe as CertifiedRecipe
from fastbound.train.recipes.crown_ibp import CrownIBP as CrownIBP
from fastbound.train.recipes.expressive import CCIBP as CCIBP
from fastbound.train.recipes.expressive import MTLIBP as MTLIBP
from fastbound.train.recipes.expressive import ExpIBP as ExpIBP
from fastbound.train.recipes.expressive import Expressive as Expressive
from fastbound.train.recipes.files import RecipeFileError as RecipeFileError
from fastbound.train.recipes.gloro import GloRo as GloRo
from fastbound.train.recipes.ibp import IBP as IBP
from fastbound.train.recipes.natural import Natural as Natural
from fastbound.train.recipes.pgd import PGD as PGD
from fastbound.train.recipes.ramped import RampedRecipe as RampedRecipe
from fastbound.train.recipes.recipe import Recipe as Recipe
from fastbound.train.recipes.sabr import SABR as SABR
from fastbound.train.recipes.short_warmup import ShortWarmup as ShortWarmup
from fastbound.train.recipes.singleprop import AdaptiveSingleProp as AdaptiveSingleProp
from fastbound.train.recipes.singleprop import SingleProp as SingleProp
from fastbound.train.recipes.step import Losses as Losses
from fastbound.train.recipes.step import Step as Step
