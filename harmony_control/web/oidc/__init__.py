"""Signing in by somebody else's word: an OpenID provider vouches, by the authorization code flow with PKCE.

    settings (web-oidc.toml) -> signing_in: begin -> the provider, in the browser -> come back
                                                  -> provider: code to ID token -> identity: claims to a role

What a browser brings back counts once, only in the browser that has begun it, and only for ten minutes. What
the provider says counts only with its signature, for us, for this sign-in and not expired. Nobody is sent
anywhere but to the provider, and from there to our own page. Authlib is loaded where there is a provider.
"""
