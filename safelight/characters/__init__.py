"""People and things that are drawn again and again: their pictures, consent and LoRAs."""
