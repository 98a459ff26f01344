"""The whole band from pilots that hop over it: paths that are seen in part of the band give the rest."""
