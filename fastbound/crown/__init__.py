"""Backward linear bounds (CROWN): the walk over the tape and its relaxations."""
