"""Data in, regularised float model out."""
