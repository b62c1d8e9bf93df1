"""Bytes to records, without PyTorch: the one reader for every way a PtychoPINN model arrives."""

from ptycho_torch.bundle.read import (
    ARCHITECTURE,
    ROLES,
    BundleRecord,
    Sentinel,
    is_own_member,
    members_digest,
    read_bundle,
    resolve,
)
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
