"""LoRAs trained on models that diffusers loads."""
