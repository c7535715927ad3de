"""The starter model: a small text-to-image model drawn from one open emoji font."""
