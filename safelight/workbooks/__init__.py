"""Spreadsheets of people, read where they can do no harm."""
