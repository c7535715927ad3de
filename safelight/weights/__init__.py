"""Which files a model needs: where they lie, their sha256 and licence."""
