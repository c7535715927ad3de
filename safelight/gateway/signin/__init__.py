"""Sign-in before the gateway: keys, sessions of browsers, OpenID Connect, limits."""
