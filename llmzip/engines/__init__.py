"""Token ids to integer masses. Engines know nothing of texts, archives or files."""
