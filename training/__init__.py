"""Recipes that produce the weights this project ships; never imported by the pipelines."""
