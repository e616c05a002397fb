"""What the operators' pages are made of: live sections, plots of rollouts and use, states."""
