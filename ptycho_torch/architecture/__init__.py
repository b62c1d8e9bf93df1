"""From what lies in a bundle to the one architecture it implies, or a refusal that says what is undecided."""

from ptycho_torch.architecture.detect import Detection, detect
from ptycho_torch.architecture.evidence import role_weights
from ptycho_torch.architecture.network import UNBUILDABLE
from ptycho_torch.architecture.override import Architecture, read_architecture
from ptycho_torch.architecture.weights import Settled

__all__ = [
    "UNBUILDABLE",
    "Architecture",
    "Detection",
    "Settled",
    "detect",
    "read_architecture",
    "role_weights",
]
