"""The CDL tables where scenarios look for them; they are `hhat.priors.cdl_tables`, as priors know them too."""

from hhat.priors.cdl_tables import PROFILES, RAY_OFFSETS_DEG, Cluster, Profile, Spreads

__all__ = ["PROFILES", "RAY_OFFSETS_DEG", "Cluster", "Profile", "Spreads"]
