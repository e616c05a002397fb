"""Who may come in: sessions, sign-in forms, foreign origins, security headers. Draws no pages."""
