"""Everything that runs have made, found by words: an index over manifests, stars, thumbnails."""
