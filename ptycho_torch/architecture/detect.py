"""Which architecture a bundle implies: evidence in, one `ModelSpec` out, or refusals that say what is undecided.

Each step is a function over the evidence that returns the fields it settles. Where nothing speaks, the convention
PtychoPINN itself applies is taken and reported as *assumed*. Refusals are gathered and raised together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ptycho_torch.architecture import eras, network, physics
from ptycho_torch.architecture.evidence import Part, gather, settle
from ptycho_torch.architecture.override import Architecture
from ptycho_torch.architecture.weights import Settled
from ptycho_torch.bundle import BundleRecord
from ptycho_torch.errors import BundleError
from ptycho_torch.spec import ModelSpec


@dataclass
class Detection:
    """The architecture of one role's weights, and how each field was decided."""

    spec: ModelSpec
    evidence: dict[str, Settled]
    notices: list[str] = field(default_factory=list)
    probe_mask: np.ndarray | None = None
    autoencoder_refusals: tuple[BundleError, ...] = ()
    """Why the physics cannot be built, though `diffraction_to_obj` can."""

    @property
    def assumed(self) -> list[str]:
        """Names of the fields that nothing in the bundle settled."""
        return [name for name, settled in self.evidence.items() if settled.source == "assumed"]

    @property
    def autoencoder_refusal(self) -> BundleError | None:
        """Every reason against the autoencoder as one error, or None where there is no such reason."""
        return together(self.autoencoder_refusals) if self.autoencoder_refusals else None


def detect(
    record: BundleRecord, role: str = "diffraction_to_obj", architecture: Architecture | None = None
) -> Detection:
    """Return the architecture that a role's weights imply.

    Args:
        record: what `read_bundle` returned.
        role: `diffraction_to_obj` or `autoencoder`; a sentinel stands for the other role's weights.
        architecture: fields that settle what the bundle leaves open.

    Raises:
        AmbiguousArchitectureError: more than one architecture remains; lists them and the override to give.
        EvidenceConflictError: two pieces of evidence contradict each other.
        MissingParamsError: fields without which nothing can be rebuilt are absent.
        UnsupportedArchitectureError: a generator nobody can build.
        BundleError: where several reasons stand against the bundle, the first one's class, and all in its message.

    Examples:
        >>> from ptycho_torch import detect, read_bundle
        >>> found = detect(read_bundle("wts.h5.zip"))
        >>> found.spec.generator, found.spec.N
        ('cnn', 64)
    """
    evidence = gather(record, role, architecture)
    unbuildable = network.refusals_of_names(evidence)
    if unbuildable:
        raise together(unbuildable)
    network.require_params(evidence)
    part = network.generator(evidence)
    part += network.sizes(evidence)
    generator, gridsize = part["generator"], part["gridsize"]
    part += network.supervised(evidence, generator)
    part += eras.era(evidence, generator, part["supervised"])
    era = part.fields["era"]
    part += network.channels(evidence, generator, gridsize)
    if part.refusals:
        # What follows takes the channels for granted.
        raise together(part.refusals)
    if generator in ("cnn", "unet"):
        part += network.convolutional(evidence, era, generator, part["supervised"])
    else:
        part += network.spectral(evidence, generator, gridsize)
    mask = None
    if part["supervised"]:
        part += settle(evidence, "num_datasets", Settled(1, "weights"))
    else:
        part += physics.physics(evidence, era, part)
        masked, mask = physics.probe_mask(evidence, era.value, part["N"])
        part += masked
    part += physics.domain(
        evidence, era.value, part.fields["physics"].value if "physics" in part.fields else "amplitude"
    )
    part += physics.parity_delta(evidence)
    part += physics.scaling(evidence, era, supervised=part["supervised"], parity_mode=part["parity_scale_mode"])
    part += Part(
        {name: given for name in evidence.override if name not in part.fields and (given := evidence.overridden(name))}
    )
    if part.refusals:
        raise together(part.refusals)
    spec = ModelSpec(**{name: settled.value for name, settled in part.fields.items()})
    notices = [*evidence.notices, *part.notices]
    return Detection(spec, dict(part.fields), notices, mask, part.autoencoder_refusals)


def together(refusals: Sequence[BundleError]) -> BundleError:
    """Return several refusals as one error of the first one's class; each names the file once."""
    first, *others = dict.fromkeys(str(refusal) for refusal in refusals)
    if not others:
        return refusals[0]
    label = first.partition(": ")[0]
    return type(refusals[0])("; also: ".join([first, *(text.removeprefix(f"{label}: ") for text in others)]))
