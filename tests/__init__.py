"""Tests: unit (mirrors src), e2e (processes and HTTP), architecture (rules over the tree)."""
