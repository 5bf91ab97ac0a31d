"""Data made by a program, one module for each anatomy: for trying searches, and for tests; a number measured on them says nothing about patients."""
