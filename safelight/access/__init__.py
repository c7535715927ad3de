"""Who may ask: API keys and what each may do."""
