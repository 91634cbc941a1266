"""Rationales: a teacher writes them, checks and an audit say what they are worth, and the good ones are chosen."""
