"""lorafusion: LoRA conditioning for diffusion models.

Importing this package imports neither torch nor lightning, so that the command line can answer at once.
"""

from lorafusion import torchvision_cure

__version__ = "0.1.0"

torchvision_cure.install()
