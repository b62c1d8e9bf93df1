"""Bytes to records, without PyTorch: the one reader for every way a PtychoPINN model arrives."""

from ptycho_torch.bundle.digests import members_digest
from ptycho_torch.bundle.layout import ARCHITECTURE, ROLES, is_own_member
from ptycho_torch.bundle.paths import resolve
from ptycho_torch.bundle.read import read_bundle
from ptycho_torch.bundle.record import BundleRecord, Sentinel
from ptycho_torch.bundle.tensors import StateDict

__all__ = [
    "ARCHITECTURE",
    "ROLES",
    "BundleRecord",
    "Sentinel",
    "StateDict",
    "is_own_member",
    "members_digest",
    "read_bundle",
    "resolve",
]
