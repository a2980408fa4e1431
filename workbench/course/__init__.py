"""The course: eight lessons with checks that test the idea."""
