"""The name of a site that every federation has."""

# The fusion site's, and so that of its data folder; no other site may have it.
FUSION_SITE = "fusion"
