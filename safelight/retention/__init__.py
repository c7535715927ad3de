"""What may go from the store: seen first, removed on demand, never what anybody needs."""
