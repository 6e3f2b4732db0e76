"""The words: records, sessions, commits, and everything that brings them back."""
